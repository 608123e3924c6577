"""Servers for as long as one command lasts, on nodes that Slurm allocates or ssh reaches. It knows the client only."""
