"""The winner pays the second price (Vickrey 1961): the lowest bid wins as ever, and costs what the runner-up asked."""

from msgspec import structs

from rakefarm.market.each import EachPolicy, lowest
from rakefarm.market.policy import Award


class SecondPrice:
    """The policy `lowest`, but for what its awards say they cost."""

    def __init__(self, view):
        self._policy = EachPolicy(view, lowest)

    def handle(self, event):
        """What happened in, what shall be done out."""
        return [pays_second(effect) for effect in self._policy.handle(event)]


def pays_second(effect):
    """An award at the price of its runner-up, if there was one; anything else as it is."""
    if isinstance(effect, Award) and effect.runner_up_price is not None:
        return structs.replace(effect, price=effect.runner_up_price)
    return effect


make = SecondPrice
