"""Every host is asked before each action; the one wins whose processors are the least busy, as it last saw itself."""

from rakefarm.market.each import EachPolicy, lowest_cpu


def make(view):
    """One action at a time, so that only the age of what is known makes a herd, and not the moment of asking."""
    return EachPolicy(view, lowest_cpu, burst=False)
