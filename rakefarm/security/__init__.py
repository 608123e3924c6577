"""Who may talk to whom, and unheard: keys, proofs, TLS. For both sides; imports neither."""
