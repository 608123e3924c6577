"""How fast a host is, learned: predicted work over what it took, and how its own faults are forgotten."""

LEARNED_SHARE = 0.1
"""What one action counts in the average. Twenty of them move it most of the way."""
SLOWEST, FASTEST = 0.02, 50.0
ONE_STEP = 3.0
"""One action moves the estimate as if it had been at most this many times off: a client's prediction may be wrong."""
SHORTEST_S = 0.02
"""Below this the start of a process outweighs the work."""

LEAST_ALONE_S = 1e-6
"""A share of a core so small that this is left of the time tells nothing."""


def learn_speed(speed: float, work_s: float, elapsed_s: float, share: float) -> float:
    """The host's speed after an action of `work_s` predicted reference seconds took `elapsed_s`, getting `share` (0 to
    1) of a core: a moving average of work / (elapsed × share), in the logarithm so that twice and half weigh alike."""
    alone_s = elapsed_s * share
    if work_s < SHORTEST_S or elapsed_s < SHORTEST_S or alone_s < LEAST_ALONE_S:
        return speed
    seen = work_s / alone_s
    ratio = min(max(seen / speed, 1.0 / ONE_STEP), ONE_STEP)
    learned: float = speed * ratio**LEARNED_SHARE
    return min(max(learned, SLOWEST), FASTEST)


def decayed(faults: float, age_s: float, half_life_s: float) -> float:
    """What is left of `faults` counted `age_s` ago."""
    left: float = faults * 0.5 ** (max(age_s, 0.0) / max(half_life_s, 1e-3))
    return left
