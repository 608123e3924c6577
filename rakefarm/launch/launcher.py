"""What a way of launching is, to the farm that goes by it: `slurm` has one program for all nodes, `ssh` one a node."""

from typing import Protocol

from msgspec import Struct

from rakefarm.launch.node import Node
from rakefarm.launch.streams import Ended, Line, Streams


class Options(Struct, frozen=True):
    """What does not depend on the way. `program` is what nodes are to run instead of rakeserver, `port` where servers
    listen (0: each picks one), `start_s` how long they may take to be ready, once there are nodes."""

    program: str = ""
    port: int = 0
    start_s: float = 60.0


class Launcher(Protocol):
    """Starts servers; reads what its programs say; ends them by force where the end of their input has not."""

    nodes: list[Node]
    start_s: float

    def start(self, streams: Streams, key_line: bytes) -> None:
        """Begin; the key goes to every node. Raises LaunchFailed."""

    def hear(self, told: Line | Ended) -> None:
        """Take note; the nodes are up to date then. Raises LaunchFailed when there is no farm to be had any more."""

    def attend(self, now: float) -> None:
        """Something may be due, at any time and often. Raises LaunchFailed."""

    @property
    def nodes_since(self) -> float | None:
        """Since when (monotonic time) there are nodes that can start; None while they are waited for."""

    def force(self, streams: Streams) -> None:
        """Whatever has not ended yet: end it, there and here."""
