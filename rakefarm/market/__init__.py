"""The market: what a job costs and who gets it. Pure functions over frozen data; no clock, no I/O."""
