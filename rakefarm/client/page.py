"""`--report FILE`: the build as one page of HTML that needs nothing else, no network and no other file.

Everything on it is text from Rakefiles, servers and compilers, so nothing of it is believed: what could act on a reader
is escaped (`safe_text`), Jinja escapes what HTML gives a meaning to, and the page forbids every script but its own.
"""

import base64
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

from rakefarm.client.board import brief_text, duration_text, price_text, safe_text, size_text
from rakefarm.client.narrator import counted
from rakefarm.client.plain import ViewError
from rakefarm.client.story import Stories, Story
from rakefarm.client.summary import Summary
from rakefarm.client.timeline import Bar, Step, bars_of, critical_path
from rakefarm.client.whole_file import WholeFile
from rakefarm.events import ActionFinished, ActionOutput, BuildFinished, Event, Notice, rfc3339

WIDTH = 1000.0
"""Of a lane, in its own units."""
THINNEST = 1.0
DRAWN_TOGETHER = 4.0
"""Bars that are short and close are drawn as one of at most this width, when there are more than MOST_BARS."""
MOST_BARS = 2000
LISTED = 250
"""Rows of the table of actions that are written as HTML; the page itself makes those of the rest when they are wanted,
since a browser is slow with ten thousand."""
MOST_ACTIONS = 20_000
MOST_STEPS = 200
MOST_FAILURES = 100
SLOWEST = 20
MOST_QUOTES = 1000
MOST_NOTICES = 100
MESSAGE_BYTES = 16384
_COLOUR = re.compile(r"\x1b\[[0-9;:]*[mK]")
Row = dict[str, Any]


class Page:
    """A part of a view that writes the page when it is closed."""

    def __init__(self, path: str) -> None:
        """Raises ViewError when there can be no such file, or Jinja is missing."""
        if importlib.util.find_spec("jinja2") is None:
            raise ViewError("--report needs Jinja, which is not installed: pip install jinja2")
        self._file = WholeFile(path, "--report")
        self._stories = Stories()
        self._summary = Summary()
        self._now_s = 0.0
        self._notices: list[Notice] = []
        self._messages: dict[int, bytes] = {}

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        self._now_s = event.time_s
        self._stories.apply(event)
        self._summary.apply(event)
        match event:
            case ActionOutput():
                said = self._messages.get(event.action, b"")
                self._messages[event.action] = said + event.stderr[: MESSAGE_BYTES + 1 - len(said)]
            case ActionFinished(outcome="succeeded"):
                self._messages.pop(event.action, None)
            case Notice() if event.level != "info":
                self._notices.append(event)

    def close(self) -> None:
        """Write the page. Again does no harm."""
        stories, self._stories = self._stories, Stories()
        if stories.started is not None:
            facts = _Facts(stories, self._summary, self._now_s).as_mapping()
            notices = [f"{each.level}: {safe_text(each.text)}" for each in self._notices[:MOST_NOTICES]]
            failures = list(islice(_failures(stories, self._messages), MOST_FAILURES))
            failed = sum(story.outcome not in ("", "succeeded") for story in stories.actions.values())
            more = {"failures": failures, "failures_left_out": failed - len(failures), "notices": notices}
            self._file.write(_render({**facts, **more}).encode("utf-8"))
            self._file.finish()
        self._file.close()


def _render(facts: Row) -> str:
    import jinja2
    from markupsafe import Markup

    directory = os.path.join(os.path.dirname(__file__), "page_files")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Ours, and the only texts that are not escaped.
    style, script = (Markup(_read(directory, name)) for name in ("page.css", "page.js"))  # nosec B704 # our own files
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(facts, style=style, script=script, script_digest=digest)


def _read(directory: str, name: str) -> str:
    with open(os.path.join(directory, name), encoding="utf-8") as file:
        return file.read()


def _failures(stories: Stories, messages: dict[int, bytes]) -> Iterator[Row]:
    for story in stories.actions.values():
        if story.finished is None or story.outcome == "succeeded":
            continue
        message = messages.get(story.action, b"")
        text = _COLOUR.sub("", message[:MESSAGE_BYTES].decode("utf-8", "replace"))
        yield {
            **_who(story),
            "outcome": story.outcome.replace("_", " "),
            "host": safe_text(story.finished.host),
            "detail": safe_text(story.finished.detail),
            "message": "\n".join(map(safe_text, text.expandtabs().split("\n"))),
            "cut": len(message) > MESSAGE_BYTES,
        }


def _who(story: Story) -> Row:
    return {
        "action": story.action,
        "set_name": brief_text(story.set_name),
        "line": story.line,
        "command": brief_text(story.command, 2000),
    }


def _longest(steps: list[Step]) -> list[Step]:
    """The longest of the steps, in the order of time."""
    if len(steps) <= MOST_STEPS:
        return steps
    least_s = sorted([step.bar.seconds for step in steps], reverse=True)[MOST_STEPS - 1]
    return [step for step in steps if step.bar.seconds >= least_s][:MOST_STEPS]


class _Facts:
    """What the page shows, as texts and numbers."""

    def __init__(self, stories: Stories, summary: Summary, now_s: float) -> None:
        assert stories.started is not None, "there was a build"
        self._stories = stories
        self._summary = summary
        self._started = stories.started
        self._begin_s = stories.started.time_s
        self._end_s = max(now_s, self._begin_s)
        self._bars = bars_of(stories, self._end_s)
        self._last = {bar.story.action: bar for bar in self._bars}

    def as_mapping(self) -> Row:
        """For the template."""
        finished = self._stories.finished
        actions = sorted(self._stories.actions.values(), key=lambda story: story.action)
        path = critical_path(self._stories, self._bars)
        elapsed_s = finished.elapsed_s if finished else self._end_s - self._begin_s
        return {
            "rakefile": safe_text(self._started.rakefile),
            "run_id": safe_text(self._started.run_id),
            "began": rfc3339(self._started.at_ns),
            "elapsed": duration_text(elapsed_s),
            "ending": self._ending(finished),
            "well": finished is not None and finished.exit_status == 0,
            "summary": list(self._summary.lines(finished)) if finished else [],
            "warning": self._summary.nothing_ran_remotely,
            "ticks": list(self._ticks()),
            "set_marks": [
                {"name": safe_text(each.set_name), "x": self._x(each.time_s) / WIDTH * 100}
                for each in self._stories.sets
            ],
            "lanes": list(self._lanes()),
            "bars_together": len(self._bars) > MOST_BARS,
            "actions": [self._action(story) for story in actions[:LISTED]],
            "rest": self._rest(actions[LISTED:MOST_ACTIONS]),
            "actions_left_out": max(0, len(actions) - MOST_ACTIONS),
            "host_names": sorted({safe_text(bar.placement.host) for bar in self._bars}),
            "hosts": list(self._hosts()),
            "path": [self._step(step) for step in _longest(path)],
            "steps_left_out": max(0, len(path) - MOST_STEPS),
            "slowest": [self._slow(bar) for bar in sorted(self._bars, key=lambda bar: -bar.seconds)[:SLOWEST]],
            "quotes": list(islice(self._quotes(), MOST_QUOTES)),
            "quotes_left_out": max(0, sum(len(s.quotes) for s in self._stories.actions.values()) - MOST_QUOTES),
            "environment": list(self._environment()),
        }

    def _ending(self, finished: BuildFinished | None) -> str:
        if finished is None:
            return "no end of it was told"
        counts = [counted(finished.succeeded + finished.failed, "action")]
        counts += [f"{count} {word}" for count, word in self._shortfalls(finished) if count]
        word = "interrupted" if finished.interrupted else "failed" if finished.exit_status else "succeeded"
        return f"{word}: {', '.join(counts)}"

    @staticmethod
    def _shortfalls(finished: BuildFinished) -> tuple[tuple[int, str], ...]:
        return (finished.failed, "failed"), (finished.stopped, "stopped"), (finished.not_started, "not started")

    # --- the picture ----------------------------------------------------------------------------------

    def _x(self, time_s: float) -> float:
        span_s = max(self._end_s - self._begin_s, 1e-6)
        return min(max((time_s - self._begin_s) / span_s, 0.0), 1.0) * WIDTH

    def _ticks(self) -> Iterator[Row]:
        span_s = max(self._end_s - self._begin_s, 1e-6)
        step_s = 10.0**-3
        factors = (2.0, 2.5, 2.0)
        number = 0
        while span_s / step_s > 6:
            step_s *= factors[number % 3]
            number += 1
        for index in range(int(span_s / step_s) + 1):
            yield {"x": index * step_s / span_s * 100, "text": f"{index * step_s:g} s"}

    def _lanes(self) -> Iterator[Row]:
        order = {host: number for number, host in enumerate([*self._stories.ready, "local"])}
        lanes: dict[tuple[int, str, int], list[Bar]] = {}
        for bar in self._bars:
            host = bar.placement.host
            lanes.setdefault((order.get(host, len(order)), host, bar.lane), []).append(bar)
        for (_, host, lane), bars in sorted(lanes.items(), key=lambda item: item[0]):
            yield {"host": safe_text(host), "lane": lane + 1, "bars": [self._bar(each) for each in self._drawn(bars)]}

    def _drawn(self, bars: list[Bar]) -> Iterator[list[Bar]]:
        """The bars of a lane, each alone, or as many together as are too short to be told apart anyway."""
        together: list[Bar] = []
        for bar in bars:
            fits = len(self._bars) > MOST_BARS and bar.placement.end == "succeeded"
            if together and not (fits and self._x(bar.end_s) - self._x(together[0].begin_s) <= DRAWN_TOGETHER):
                yield together
                together = []
            together.append(bar)
            if not fits:
                yield together
                together = []
        if together:
            yield together

    def _bar(self, bars: list[Bar]) -> Row:
        bar = bars[0]
        begin, end = self._x(bar.begin_s), self._x(bars[-1].end_s)
        parts = []
        for name, begin_s, end_s in bar.phases() if len(bars) == 1 else [("running", bar.begin_s, bars[-1].end_s)]:
            x, width = self._x(begin_s), self._x(end_s) - self._x(begin_s)
            if width >= THINNEST / 3:
                kind = name if name in ("preparing", "queued", "sending", "running", "receiving") else "running"
                parts.append({"kind": kind, "x": f"{x:.2f}", "width": f"{width:.2f}"})
        return {
            "action": bar.story.action,
            "actions": " ".join(str(each.story.action) for each in bars) if len(bars) > 1 else "",
            "end": bar.placement.end or "stopped",
            "x": f"{min(begin, WIDTH - THINNEST):.2f}",
            "width": f"{max(end - begin, THINNEST):.2f}",
            "parts": parts,
        }

    # --- the tables -----------------------------------------------------------------------------------

    def _since(self, time_s: float) -> str:
        return f"{time_s - self._begin_s:.2f}"

    def _action(self, story: Story) -> Row:
        bar = self._last.get(story.action)
        award = bar.placement.award if bar else None
        runner_up = ""
        if award is not None and award.runner_up:
            runner_up = f"{safe_text(award.runner_up)} at {price_text(award.runner_up_price)}"
        return {
            **_who(story),
            "host": safe_text(award.host) if award else "",
            "lane": bar.lane + 1 if bar else "",
            "outcome": story.outcome.replace("_", " ") or "stopped",
            "begin": self._since(bar.begin_s) if bar else "",
            "took": f"{bar.seconds:.2f}" if bar else "",
            "promised": f"{award.seconds:.2f}" if award and award.seconds is not None else "",
            "price": price_text(award.price) if award and award.price is not None else "",
            "runner_up": runner_up,
            "attempts": len(story.placements),
        }

    def _rest(self, stories: list[Story]) -> str:
        """The cells of these rows of the table of actions, as JSON that is safe in HTML; empty for none. A null is what
        stands above it."""
        cells = [list(self._action(story).values()) for story in stories]
        rows = cells[:1]
        for above, row in pairwise(cells):
            rows.append([None if one == before else one for one, before in zip(row, above, strict=True)])
        return json.dumps(rows, separators=(",", ":")).replace("<", "\\u003c") if rows else ""

    def _hosts(self) -> Iterator[Row]:
        left_out = {event.host: event.reason for event in self._stories.left_out}
        names = dict.fromkeys([*self._started.hosts, *self._stories.ready, *(bar.placement.host for bar in self._bars)])
        ended: dict[str, list[ActionFinished]] = {}
        for story in self._stories.actions.values():
            if story.finished is not None:
                ended.setdefault(story.finished.host, []).append(story.finished)
        for name in names:
            ready, actions = self._stories.ready.get(name), ended.get(name, [])
            busy_s = sum(each.ran_s for each in actions)
            span_s = max(self._end_s - self._begin_s, 1e-6)
            yield {
                "name": safe_text(name),
                "slots": ready.slots if ready else "",
                "actions": len(actions),
                "busy": duration_text(busy_s),
                "share": f"{busy_s / span_s / ready.slots:.0%}" if ready and ready.slots else "",
                "sent": size_text(sum(each.bytes_sent for each in actions)),
                "received": size_text(sum(each.bytes_received for each in actions)),
                "saved": size_text(sum(each.bytes_saved for each in actions)),
                "remark": f"left out: {safe_text(left_out[name])}" if name in left_out else "",
            }

    def _step(self, step: Step) -> Row:
        return {
            **_who(step.bar.story),
            "host": safe_text(step.bar.placement.host),
            "begin": self._since(step.bar.begin_s),
            "waited": f"{max(0.0, step.waited_s):.2f}",
            "took": f"{step.bar.seconds:.2f}",
        }

    def _slow(self, bar: Bar) -> Row:
        finished = bar.story.finished
        own = finished is not None and bar.placement.end == finished.outcome
        return {
            **_who(bar.story),
            "host": safe_text(bar.placement.host),
            "took": f"{bar.seconds:.2f}",
            "ran": f"{finished.ran_s:.2f}" if own and finished else "",
            "cpu": f"{finished.cpu_s:.2f}" if own and finished else "",
            "memory": size_text(finished.peak_memory_bytes) if own and finished and finished.peak_memory_bytes else "",
        }

    def _quotes(self) -> Iterator[Row]:
        quotes = [quote for story in self._stories.actions.values() for quote in story.quotes]
        for quote in sorted(quotes, key=lambda each: each.time_s):
            terms = " + ".join(f"{safe_text(name)} {value:.3g}" for name, value in quote.terms.items())
            yield {
                "when": self._since(quote.time_s),
                "action": quote.action,
                "host": safe_text(quote.host),
                "price": price_text(quote.price) if quote.price is not None else "",
                "seconds": f"{quote.seconds:.2f}" if quote.seconds is not None else "",
                "terms": terms if quote.price is not None else f"declines: {safe_text(quote.reason)}",
            }

    def _environment(self) -> Iterator[tuple[str, str]]:
        started = self._started
        yield "this machine", safe_text(f"{started.software}, {counted(started.cores, 'core')}")
        yield "policy", safe_text(started.policy)
        yield "farm", "embedded, on this machine" if started.embedded else counted(len(started.hosts), "host")
        for host in self._stories.ready.values():
            release = f"release {host.server_version}, {counted(host.slots, 'slot')}, isolation {host.isolation}"
            release += f", authentication {host.authentication}"
            yield safe_text(host.host), safe_text(release)
        if self._stories.finished is not None:
            yield "messages of the protocol", str(self._stories.finished.messages)
