"""Who may talk to whom, and unheard: keys, proofs, TLS. For both sides; imports neither."""

PROMISE = (
    "nothing leaves loopback without a key; both ends prove it; a command never sees the key, other actions or the"
    " farm's own files; what isolation is in force is measured at start, printed, and sent to the client, with what is"
    " missing; a key holder can run programs as the farm's user inside that isolation."
)
"""In README.md, docs/security.md and `rakeserver --help`, in the same words."""
