"""How many more of an engine's actions this machine asks for: its free slots, less what others keep busy.

A bot that asks may be given an action at any moment, and then stands in the same queue as everybody else. So only as
many ask as there are slots that nobody holds or waits for, and cores that no other program uses; where the slots are
free and the cores are not, one asks all the same, since a busy machine is slow and not closed.
"""

import threading

from rakefarm.server.desk import Desk, Sight


class Offer:
    """One server's. For any thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._asking: set[int] = set()

    def try_ask(self, bot: int) -> bool:
        """Whether this bot may ask for an action now; it then counts as asking until `stop_asking`."""
        allowed = spare(self._desk.look())
        with self._lock:
            self._asking.discard(bot)
            if len(self._asking) >= allowed:
                return False
            self._asking.add(bot)
            return True

    def stop_asking(self, bot: int) -> None:
        """It has an action, or asks no more."""
        with self._lock:
            self._asking.discard(bot)


def spare(seen: Sight) -> int:
    """How many actions more the machine could begin now."""
    promised, load = seen.promised, seen.load
    free = promised.slots - promised.running - promised.leased - promised.waiting - promised.elsewhere
    if free <= 0:
        return 0
    idle = round(load.cores - load.busy - promised.running)
    return max(1, min(free, idle))
