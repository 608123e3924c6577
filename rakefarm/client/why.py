"""`rakefarm why ACTION`: who bid for it, who won and by how much, and what came of it, from the ledger."""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rakefarm.client.board import brief_text, duration_text, price_text, safe_text, size_text
from rakefarm.client.ledger_reader import LAST, open_ledger
from rakefarm.client.narrator import slowness_text
from rakefarm.client.recorded import find_run, read_run
from rakefarm.client.story import LOST, REFUSED, Placement, Stories, Story
from rakefarm.config import ConfigError
from rakefarm.events import QuoteReceived
from rakefarm.exitcodes import ExitStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `rakefarm why`."""
    parser.add_argument("action", metavar="ACTION", help="its number, a file that it made, or a part of its command")
    parser.add_argument(
        "--run", dest="run_id", default=LAST, metavar="ID", help="a build by its id or the start of it (default: last)"
    )
    parser.add_argument("--ledger", metavar="FILE", help="the ledger to read (default: this user's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every match")


def why(options: argparse.Namespace, environ: Mapping[str, str], stdout: TextIO, stderr: TextIO) -> int:
    """Print what the ledger says of the action, or which actions may be meant; answers the exit status. Raises
    ConfigError when there is no ledger, no such build or no such action."""
    with open_ledger(options.ledger, environ) as reader:
        run_id = find_run(reader, options.run_id)
        events, skipped = read_run(reader, run_id)
    stories = Stories()
    for event in events:
        stories.apply(event)
    if skipped:
        stderr.write(reader.warning(skipped))
    found = find(stories.actions, options.action, _pseudonym(options.action, reader.path))
    if not found:
        count = len(stories.actions)
        raise ConfigError(
            f"no action of build {run_id} is, makes or runs {brief_text(options.action)!r};"
            f" it has {count} action{'s' * (count != 1)}, and --run ID reads another build"
        )
    if options.json:
        stdout.write(_as_json(stories, run_id, found))
    elif len(found) > 1:
        stdout.write(f"{len(found)} actions of build {run_id} may be meant; name one by its number:\n")
        width = len(str(found[-1].action))
        stdout.writelines(f"{story.action:>{width}}  {_place(story)}\n" for story in found)
    else:
        _show(stories, run_id, found[0], environ, stdout)
    return int(ExitStatus.OK)


# --- which -----------------------------------------------------------------------------------------------


def find(actions: Mapping[int, Story], wanted: str, pseudonym: str | None = None) -> list[Story]:
    """The actions that are meant by `wanted`: a number before an output before a whole command before a part of one.
    `pseudonym` is what stands for it in a ledger that hides names."""
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 19 and int(wanted) in actions:
        return [actions[int(wanted)]]
    names = {wanted, os.path.normpath(wanted), pseudonym}
    stories = sorted(actions.values(), key=lambda story: story.action)
    made = [(story, story.finished.outputs) for story in stories if story.finished]
    ways = (
        [story for story, outputs in made if not names.isdisjoint(outputs)],
        [story for story, outputs in made if not names.isdisjoint(map(os.path.basename, outputs))],
        [story for story in stories if story.command in names],
        [story for story in stories if wanted and wanted in story.command],
    )
    return next((found for found in ways if found), [])


def _pseudonym(name: str, ledger: str) -> str | None:
    from rakefarm.client.pseudonyms import pseudonym

    return pseudonym(name, ledger.removesuffix(".1").removesuffix(".jsonl") + ".key")


# --- for programs ----------------------------------------------------------------------------------------


def _as_json(stories: Stories, run_id: str, found: Sequence[Story]) -> str:
    from rakefarm.client.jsonlines import record_line

    record: dict[str, object] = {"schema": 1, "run": run_id}
    record["actions"] = [_record(stories, story) for story in found]
    return record_line(record).decode("ascii")


def _record(stories: Stories, story: Story) -> dict[str, object]:
    finished = story.finished
    return {
        "action": story.action,
        "set_name": story.set_name,
        "line": story.line,
        "command": story.command,
        "remote": story.remote,
        "outcome": story.outcome or None,
        "detail": finished.detail if finished else "",
        "host": finished.host if finished else None,
        "ran_s": finished.ran_s if finished else None,
        "cpu_s": finished.cpu_s if finished else None,
        "peak_memory_bytes": finished.peak_memory_bytes if finished else None,
        "bytes_sent": finished.bytes_sent if finished else None,
        "bytes_received": finished.bytes_received if finished else None,
        "bytes_saved": finished.bytes_saved if finished else None,
        "outputs": list(finished.outputs) if finished else [],
        "quoted_as": story.quoted_as or None,
        "quotes": [
            {
                "time_s": quote.time_s - _begin(stories),
                "host": quote.host,
                "price": quote.price,
                "seconds": quote.seconds,
                "terms": dict(quote.terms),
                "declined": quote.reason or None,
            }
            for quote in _quotes(stories, story)
        ],
        "placements": [
            {
                "time_s": placement.award.time_s - _begin(stories),
                "attempt": placement.award.attempt,
                "host": placement.host,
                "price": placement.award.price,
                "terms": dict(placement.award.terms),
                "runner_up": placement.award.runner_up or None,
                "runner_up_price": placement.award.runner_up_price,
                "margin": placement.margin,
                "promised_s": placement.award.seconds,
                "took_s": placement.seconds,
                "end": placement.end or None,
                "reason": placement.reason,
            }
            for placement in story.placements
        ],
    }


# --- for a person ----------------------------------------------------------------------------------------


def _show(stories: Stories, run_id: str, story: Story, environ: Mapping[str, str], stdout: TextIO) -> None:
    from rakefarm.client.tables import Sheet, draw_tables

    stdout.write(f"action {story.action} of build {run_id}: {_place(story)}\n")
    stdout.writelines(f"{line}\n" for line in _ending(story))
    stdout.write("\n")
    if story.placements:
        placed = Sheet(("placed", "on", "price", "promised", "took", "and then"), words=frozenset({1, 5}))
        placed.rows += [_placement_row(placement, _begin(stories)) for placement in story.placements]
        draw_tables([placed], environ, stdout)
        reasons = [f"{text}\n" for text in map(_reason, story.placements) if text]
        stdout.writelines([*reasons, "\n"] if reasons else [])
    quotes = _quotes(stories, story)
    if not quotes:
        why_none = "it does not run on the farm" if not story.remote else "no host was asked, or none answered"
        stdout.write(f"no quotes: {why_none}\n")
        return
    if story.quoted_as != story.action:
        stdout.write(
            f"quotes for action {story.quoted_as}, which needs the same; its own prices were reckoned from them:\n"
        )
    asked = Sheet(("asked", "host", "price", "seconds", "above", "terms, or why not"), words=frozenset({1, 5}))
    lowest = min((quote.price for quote in quotes if quote.price is not None), default=None)
    asked.rows += [_quote_row(quote, lowest, _begin(stories)) for quote in quotes]
    draw_tables([asked], environ, stdout)


def _place(story: Story) -> str:
    if not story.line:
        return "it was never queued"
    return f"set '{safe_text(story.set_name)}', line {story.line}: {safe_text(story.command)}"


def _ending(story: Story) -> Iterable[str]:
    finished, won = story.finished, story.won
    if finished is None:
        yield "no end of it is recorded: the build still runs, or was stopped"
        return
    where = f" on {safe_text(finished.host)}" if finished.host else ""
    text = f"{finished.outcome.replace('_', ' ')}{where}"
    text += f": {safe_text(finished.detail)}" if finished.detail and finished.outcome != "succeeded" else ""
    if won is not None and won.seconds is not None:
        text += f", after {duration_text(won.seconds)}"
        promised = won.award.seconds
        if promised:
            error = (won.seconds - promised) / promised
            text += f" where {duration_text(promised)} were promised ({error:+.0%})"
    yield text
    facts = [f"the command ran {_seconds(finished.ran_s)}", f"{_seconds(finished.cpu_s)} of CPU"]
    facts += [f"{size_text(finished.peak_memory_bytes)} of memory"] * (finished.peak_memory_bytes > 0)
    facts += [f"{size_text(finished.bytes_sent)} sent"] * (finished.bytes_sent > 0)
    facts += [f"{size_text(finished.bytes_saved)} of inputs were there"] * (finished.bytes_saved > 0)
    facts += [f"{size_text(finished.bytes_received)} came back"] * (finished.bytes_received > 0)
    if finished.ran_s or finished.cpu_s:
        yield ", ".join(facts)
    lost = sum(placement.end == LOST for placement in story.placements)
    refused = sum(placement.end == REFUSED for placement in story.placements)
    if lost or refused:
        counts = [f"lost {lost}×"] * (lost > 0) + [f"refused {refused}×"] * (refused > 0)
        yield f"{', '.join(counts)} before that"
    if finished.outputs:
        yield f"made {safe_text(', '.join(finished.outputs))}"


def _placement_row(placement: Placement, begin_s: float) -> tuple[str, ...]:
    award = placement.award
    return (
        f"{award.time_s - begin_s:.2f} s",
        safe_text(award.host),
        price_text(award.price),
        _seconds(award.seconds),
        _seconds(placement.seconds),
        _what_came(placement),
    )


def _what_came(placement: Placement) -> str:
    if not placement.end:
        return "no end is recorded"
    if placement.end == LOST:  # the reason says how
        return safe_text(placement.reason)
    end = placement.end.replace("_", " ")
    return f"{end}: {safe_text(placement.reason)}" if placement.reason and end != "succeeded" else end


def _quote_row(quote: QuoteReceived, lowest: float | None, begin_s: float) -> tuple[str, ...]:
    when, host = f"{quote.time_s - begin_s:.2f} s", safe_text(quote.host)
    if quote.price is None:
        return when, host, "-", "-", "-", f"declines: {safe_text(quote.reason)}"
    assert lowest is not None, "it is a price itself"
    above = "lowest" if quote.price == lowest else price_text(quote.price - lowest)
    return when, host, price_text(quote.price), _seconds(quote.seconds), above, _sum(quote.terms)


def _reason(placement: Placement) -> str:
    """Of what its price was made, and how much more the next best host's was."""
    award, margin = placement.award, placement.margin
    texts = [_sum(award.terms)] if award.terms else []
    if margin is not None:
        side = f"{price_text(abs(margin))} {'less' if margin >= 0 else 'more'} than"
        texts.append(f"{side} {safe_text(award.runner_up)} at {price_text(award.runner_up_price)}")
        texts[-1] += slowness_text(award.runner_up_slowness)
    return f"{safe_text(award.host)} at {price_text(award.price)}: {', '.join(texts)}" if texts else ""


def _sum(terms: Mapping[str, float]) -> str:
    return " + ".join(f"{safe_text(name)} {value:.3g}" for name, value in terms.items())


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3g} s"


def _quotes(stories: Stories, story: Story) -> list[QuoteReceived]:
    """Those that decided: its own, or those of the action that was asked for in its place."""
    asked = stories.actions.get(story.quoted_as)
    return asked.quotes if asked is not None else []


def _begin(stories: Stories) -> float:
    return stories.started.time_s if stories.started else 0.0
