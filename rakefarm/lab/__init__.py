"""The lab: experiments with policies and bids, simulated and on real servers. See docs/lab.md."""
