"""A policy's world in which sending an action away costs what it has been seen to cost.

What an action takes beyond its command is the same for all distant hosts, more or less, and so decides nothing among
them. Between them and this machine, where `local` bids too, it decides: an action shorter than that is sooner done
here. The model behind is `break_even`; here its coefficients are learned from the build's own actions.
"""

from rakefarm.market.policy import Job, View


class WithOverheads:
    """A `View` in which the overhead is part of the sending."""

    def __init__(self, view: View) -> None:
        self._view = view

    def now(self) -> float:
        """The time in seconds."""
        return self._view.now()

    def random(self) -> float:
        """A random number, 0 ≤ x < 1."""
        return self._view.random()

    def transfer_s(self, job: Job, host: str) -> float:
        """Seconds of sending and of everything else but the command."""
        return self._view.transfer_s(job, host) + self._view.overhead_s(host)

    def overhead_s(self, host: str) -> float:
        """Nothing: it is in `transfer_s`."""
        return 0.0
