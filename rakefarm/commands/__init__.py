"""The subcommands, a module each: `add_arguments` for its options, `run` to do it. They know both client and server."""
