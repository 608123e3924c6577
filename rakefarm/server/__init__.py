"""The server: a listener, its pool of workers, and the executors that confine commands."""
