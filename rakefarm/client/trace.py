"""`--trace FILE`: the build as a Chrome trace, for ui.perfetto.dev or chrome://tracing.

Format: "Trace Event Format", Google, 2016 (JSON object form). A host is a process, and each of its lanes a thread; an
action is a complete event ("X") there, and its phases are complete events within it. Process 0 is the build, with its
sets; prices are counters ("C") of their host; losses, hosts that are left out and warnings are instants ("i").
Times are whole microseconds since the build began.

Slices are written as soon as they end, so what is held in memory are the actions under way.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from rakefarm.client.board import brief_text
from rakefarm.client.jsonlines import record_line
from rakefarm.client.lanes import Lanes
from rakefarm.client.story import Placement, Stories, Story
from rakefarm.client.whole_file import WholeFile
from rakefarm.events import (
    ActionFinished,
    ActionPlaced,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    CopyEnded,
    Event,
    HostLeftOut,
    HostReady,
    Notice,
    QuoteReceived,
    SetStarted,
)

BUILD = 0
"""The process of the build itself."""
STOPPED = "stopped"
"""How an action ended that the build's end found under way."""


class Trace:
    """A part of a view that writes the trace; the file has its name when it is closed."""

    def __init__(self, path: str) -> None:
        """Raises ViewError when there can be no such file."""
        self._file = WholeFile(path, "--trace")
        self._begin_s: float | None = None
        self._now_s = 0.0
        self._run_id = ""
        self._first = True
        self._stories = Stories()
        self._lanes = Lanes()
        self._processes: dict[str, int] = {}
        self._threads: set[tuple[str, int]] = set()
        self._open: dict[int, list[tuple[Placement, int]]] = {}
        self._set: SetStarted | None = None
        self._handlers: dict[type[Event], Callable[[Any], object]] = {
            BuildStarted: lambda event: self._name_process(BUILD, f"build of {brief_text(event.rakefile)}"),
            SetStarted: self._set_started,
            HostReady: lambda event: self._process(event.host),
            HostLeftOut: lambda event: self._instant(self._process(event.host), f"left out: {event.reason}"),
            QuoteReceived: lambda event: self._price(event.host, event.price),
            ActionPlaced: self._action_placed,
            ActionRetried: self._action_retried,
            CopyEnded: lambda event: self._settle(self._stories.actions[event.action]),
            ActionFinished: self._action_finished,
            Notice: lambda event: self._instant(BUILD, event.text),
            BuildFinished: lambda _: self._end_set(),
        }

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        if self._begin_s is None:
            self._begin_s, self._run_id = event.time_s, event.run_id
            self._file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        self._now_s = event.time_s
        self._stories.apply(event)
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def close(self) -> None:
        """End what is under way, and give the file its name. Again does no harm."""
        if self._begin_s is None:
            self._file.close()  # there was no build
            return
        for action, placements in self._open.items():
            for placement, lane in placements:
                placement.ended_s, placement.end = self._now_s, STOPPED
                self._slices(self._stories.actions[action], placement, lane)
        self._open.clear()
        self._end_set()
        self._file.write(b"\n]," + record_line({"otherData": {"run_id": self._run_id}})[1:])
        self._file.finish()

    # --- events ---------------------------------------------------------------------------------------

    def _set_started(self, event: SetStarted) -> None:
        self._end_set()
        self._set = event

    def _end_set(self) -> None:
        if self._set is not None:
            name, begin_s = f"set {brief_text(self._set.set_name)}", self._set.time_s
            self._slice(BUILD, 1, name, "set", begin_s, self._now_s, {"actions": self._set.actions})
            self._set = None

    def _action_placed(self, event: ActionPlaced) -> None:
        story = self._stories.actions[event.action]
        self._settle(story)
        lane = self._lanes.take(event.host)
        self._open.setdefault(event.action, []).append((story.placements[-1], lane))
        self._price(event.host, event.price)

    def _action_retried(self, event: ActionRetried) -> None:
        self._instant(self._process(event.host), f"action {event.action}: {event.reason}")
        self._settle(self._stories.actions[event.action])

    def _action_finished(self, event: ActionFinished) -> None:
        self._settle(self._stories.actions[event.action])
        del self._stories.actions[event.action]

    def _settle(self, story: Story) -> None:
        """Write the placements of the action that have ended."""
        placements = self._open.pop(story.action, [])
        for placement, lane in placements:
            if placement.end:
                self._slices(story, placement, lane)
                self._lanes.release(placement.host, lane)
            else:
                self._open.setdefault(story.action, []).append((placement, lane))

    # --- what is written ------------------------------------------------------------------------------

    def _slices(self, story: Story, placement: Placement, lane: int) -> None:
        """The action, and its phases within it."""
        process, begin_s, end_s = self._thread(placement.host, lane), placement.award.time_s, placement.ended_s
        assert end_s is not None, "it has ended"
        facts: dict[str, object] = {
            "action": story.action,
            "set": brief_text(story.set_name),
            "line": story.line,
            "attempt": placement.award.attempt,
            "price": placement.award.price,
            "promised_s": placement.award.seconds,
            "end": placement.end,
            "reason": brief_text(placement.reason),
        }
        name = brief_text(story.command, 200) or f"action {story.action}"
        self._slice(process, lane + 1, name, "action", begin_s, end_s, facts)
        phases = [(begin_s, "preparing"), *placement.phases, (end_s, "")]
        for (phase_s, phase), (next_s, _) in pairwise(phases):
            self._slice(process, lane + 1, phase, "phase", phase_s, next_s, {"action": story.action})

    def _process(self, host: str) -> int:
        process = self._processes.get(host)
        if process is None:
            process = self._processes[host] = len(self._processes) + 1
            self._name_process(process, brief_text(host))
        return process

    def _name_process(self, process: int, name: str) -> None:
        self._put({"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}})
        self._put({"ph": "M", "name": "process_sort_index", "pid": process, "tid": 0, "args": {"sort_index": process}})

    def _thread(self, host: str, lane: int) -> int:
        """The process of the host; the thread of the lane has its name from now on."""
        process = self._process(host)
        if (host, lane) not in self._threads:
            self._threads.add((host, lane))
            name = f"slot {lane + 1}"
            self._put({"ph": "M", "name": "thread_name", "pid": process, "tid": lane + 1, "args": {"name": name}})
        return process

    def _slice(
        self, process: int, thread: int, name: str, kind: str, begin_s: float, end_s: float, facts: dict[str, object]
    ) -> None:
        begin_us = self._microseconds(begin_s)
        duration_us = max(0, self._microseconds(end_s) - begin_us)
        place = {"pid": process, "tid": thread, "ts": begin_us, "dur": duration_us}
        self._put({"ph": "X", "name": name, "cat": kind, **place, "args": facts})

    def _instant(self, process: int, text: str) -> None:
        place = {"pid": process, "tid": 0, "ts": self._microseconds(self._now_s)}
        self._put({"ph": "i", "s": "p", "name": brief_text(text), **place})

    def _price(self, host: str, price: float | None) -> None:
        if price is not None:
            place = {"pid": self._process(host), "ts": self._microseconds(self._now_s)}
            self._put({"ph": "C", "name": "price", **place, "args": {"price": price}})

    def _microseconds(self, time_s: float) -> int:
        assert self._begin_s is not None, "there was an event"
        return max(0, round((time_s - self._begin_s) * 1e6))

    def _put(self, record: dict[str, object]) -> None:
        self._file.write((b"" if self._first else b",\n") + record_line(record)[:-1])
        self._first = False
