"""What commands took before: the client's predictions, by what a command is and not where it lies.

A signature is the command with the directories taken off its paths, so that the same file of another checkout, and an
action of yesterday's build, are known again. What was never seen is predicted by its kind and the size of its inputs,
from all that was seen of that kind. Pure: loading and keeping are the caller's.
"""

import re
from collections.abc import Iterable
from itertools import islice

from msgspec import Struct

from rakefarm.market.kind import kind_of

SEEN_SHARE = 0.4
"""What the newest time counts in a signature's average: a file that has grown is known again after a few builds."""
LEAST_S = 1e-6
"""Nothing takes less: a price must be above zero, also after arithmetic."""
MOST_SIGNATURES = 20_000
LATEST = 1000
"""Signatures from which the averages by kind are made: of older ones hardly anything would be left in them."""
# From the start of a word only: looked for from every place, a long word without a slash takes its length squared.
_DIRECTORIES = re.compile(r"(?<![^\s=:,'\"])[^\s=:,'\"]*/")


class Experience(Struct, array_like=True):
    """Of one signature: reference seconds, input bytes, peak memory (bytes), and how often it was seen."""

    work_s: float
    input_bytes: int
    memory_bytes: int
    count: int


class Prediction(Struct, frozen=True):
    """Reference seconds and peak memory (bytes; 0 when unknown); `sure` when this very signature was seen."""

    work_s: float
    memory_bytes: int
    sure: bool


def signature_of(command: str) -> str:
    """The command without directories: `cc -Iinclude -c src/a.c` and `cc -I/x/include -c a.c` are one."""
    return " ".join(_DIRECTORIES.sub("", command).split())


class History:
    """Experience by signature, and an average by kind. Not for two threads at once."""

    def __init__(self, known: Iterable[tuple[str, Experience]] = ()) -> None:
        self._known = dict(known)
        self._averages: dict[str, Experience] | None = None

    @property
    def _kinds(self) -> dict[str, Experience]:
        """The averages by kind; made when first asked for, since a build of known commands never asks."""
        if self._averages is None:
            self._averages = {}
            latest = list(islice(reversed(self._known.items()), LATEST))
            for signature, seen in reversed(latest):
                self._average(kind_of(signature), seen.input_bytes, seen.work_s)
        return self._averages

    def items(self) -> Iterable[tuple[str, Experience]]:
        """Everything worth keeping, what was seen longest ago first."""
        return self._known.items()

    def predict(self, signature: str, kind: str, input_bytes: int) -> Prediction | None:
        """What the command will take, or None when nothing like it was seen.

        Work grows with the size of the inputs, as far as the kind's average tells, but not below a quarter of that
        average: a compiler's start and its headers cost the same for every file.
        """
        seen = self._known.get(signature)
        if seen is not None:
            return Prediction(max(seen.work_s, LEAST_S), seen.memory_bytes, sure=True)
        like = self._kinds.get(kind)
        if like is None:
            return None
        size = input_bytes / like.input_bytes if like.input_bytes and input_bytes else 1.0
        work_s = like.work_s * min(max(0.25 + 0.75 * size, 0.25), 4.0)
        return Prediction(max(work_s, LEAST_S), 0, sure=False)

    def learn(self, signature: str, kind: str, input_bytes: int, work_s: float, memory_bytes: int) -> None:
        """Take in how it went: reference seconds and peak memory in bytes."""
        if not 0.0 < work_s < 1e6:
            return
        before = self._known.pop(signature, None)  # the newest stand last
        share = SEEN_SHARE if before is not None else 1.0
        old = before or Experience(work_s, input_bytes, memory_bytes, 0)
        self._known[signature] = Experience(
            old.work_s + share * (work_s - old.work_s),
            input_bytes,
            max(memory_bytes, int(old.memory_bytes * 0.9)),
            old.count + 1,
        )
        while len(self._known) > MOST_SIGNATURES:
            del self._known[next(iter(self._known))]
        if self._averages is not None:
            self._average(kind, input_bytes, work_s)

    def _average(self, kind: str, input_bytes: int, work_s: float) -> None:
        like = self._kinds.setdefault(kind, Experience(work_s, input_bytes, 0, 0))
        like.count += 1
        share = max(0.05, 1.0 / like.count)
        like.work_s += share * (work_s - like.work_s)
        like.input_bytes += int(share * (input_bytes - like.input_bytes))
