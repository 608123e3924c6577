"""This server as a worker of an engine: its bots, and the leases that they run (docs/engine.md)."""
