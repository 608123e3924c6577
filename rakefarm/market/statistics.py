"""The statistics that bids are judged by: few, robust, and on plain lists of numbers.

Medians and ranks rather than means: one action that met a stalled disk must not decide what is said of a hundred.

Sources:
  - rank correlation: C. Spearman, "The Proof and Measurement of Association between Two Things", American Journal of
    Psychology 15 (1904); with ties it is Pearson's correlation of the averaged ranks;
  - fairness: R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource Allocation
    in Shared Computer Systems", DEC-TR-301 (1984);
  - bias as a ratio: C. Tofallis, "A better measure of relative prediction accuracy for model selection and model
    estimation", Journal of the Operational Research Society 66 (2015): the logarithm of predicted over realised treats
    twice and half alike, where a percentage favours who predicts low.
"""

import math
from collections.abc import Sequence

Pair = tuple[float, float]
"""What was predicted, and what came of it."""


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two. Raises ValueError for none."""
    if not values:
        raise ValueError("the median of nothing")
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    low, high = ordered[middle - 1], ordered[middle]
    return low + (high - low) / 2


def median_error(pairs: Sequence[Pair]) -> float | None:
    """The median absolute error as a share of what was realised: 0.25 is 25 %. All realised are above 0.
    None for no pair."""
    if not pairs:
        return None
    return median([abs(predicted - realised) / realised for predicted, realised in pairs])


def bias(pairs: Sequence[Pair]) -> float | None:
    """The factor by which predictions are typically too high (above 1) or too low: the median of the logarithms of
    predicted over realised, as a ratio again. All numbers are above 0. None for no pair."""
    if not pairs:
        return None
    return math.exp(median([math.log(predicted) - math.log(realised) for predicted, realised in pairs]))


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, from 1; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    result = [0.0] * len(values)
    first = 0
    while first < len(order):
        after = first + 1
        while after < len(order) and values[order[after]] == values[order[first]]:
            after += 1
        for index in order[first:after]:
            result[index] = (first + 1 + after) / 2
        first = after
    return result


def rank_correlation(pairs: Sequence[Pair]) -> float | None:
    """Spearman's rank correlation, -1 to 1. None when one side does not vary: there is nothing to correlate."""
    left = ranks([one for one, _ in pairs])
    right = ranks([other for _, other in pairs])
    middle = (len(pairs) + 1) / 2
    left_square = sum((rank - middle) ** 2 for rank in left)
    right_square = sum((rank - middle) ** 2 for rank in right)
    if not left_square or not right_square:
        return None
    product = sum((one - middle) * (other - middle) for one, other in zip(left, right, strict=True))
    # Rounding may lead a hair beyond.
    return max(-1.0, min(1.0, product / math.sqrt(left_square * right_square)))


def fairness(values: Sequence[float]) -> float | None:
    """Jain's index: 1 when all values are equal, 1 / n when one has everything. No value is negative.
    None for no value, or only zeros."""
    largest = max(values, default=0.0)
    if largest <= 0.0:
        return None
    shares = [value / largest for value in values]  # the index does not depend on the scale, squares may overflow
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))
