"""What `rakefarm replay` prints for a person."""

from collections.abc import Mapping
from typing import TextIO

from rakefarm.client.board import brief_text, duration_text, safe_text
from rakefarm.client.tables import Sheet, draw_tables, write_prose
from rakefarm.lab.recorded_build import RecordedBuild
from rakefarm.lab.replay import Errors, Replay, Replayed, differing

MOST_ROWS = 20
COMMAND = 60
MODELLED = """\
modelled: cores shared by their commands and foreign load, slots, queues,
turns, the way to each host; foreign load as the hosts said it, from sample to
sample; the work of each action from the seconds that it ran. Not modelled:
needs, memory, disks, surcharges of prices, other builds' decisions, and
whatever only another choice would have met.
"""


def show(found: Replay, all_rows: bool, environ: Mapping[str, str], stdout: TextIO) -> None:
    """The build, how far the model is to be believed, what the policies would make of it, and what they choose."""
    build = found.build
    build_text = f"build {build.run_id} of {build.at}, policy {safe_text(build.policy)}: {_size_text(build)}"
    write_prose(build_text, environ, stdout)
    for host, factor in found.model.honesty.items():
        if factor != 1.0:
            stdout.write(f"{safe_text(host)} did {factor:.2g} of what it said, and is modelled so\n")
    stdout.write(f"\n{MODELLED}\n")
    makespans = Sheet(("", "makespan", "against them", "choices that differ", "so it is"), words=frozenset({0, 4}))
    makespans.rows.append(("as recorded", _seconds(build.makespan_s), "", "", ""))
    off = f"the model is {found.modelled_s / build.makespan_s - 1:+.1%} off" if found.modelled_s else "it did not end"
    makespans.rows.append(("the recorded choices, modelled", _seconds(found.modelled_s), "1", "", off))
    actions = len(found.model.actions)
    for each in found.policies:
        ratio = "unknown" if each.ratio is None else f"{each.ratio:.3f}"
        row = f"{safe_text(each.policy)}, modelled", _seconds(each.makespan_s), ratio
        makespans.rows.append((*row, f"{each.differing} of {actions}", _verdict(each)))
    draw_tables([makespans], environ, stdout)
    write_prose(f"error of the model, recorded choices: {_error_text(found.error)}", environ, stdout)
    moved = "error on another host: unknown, no other build of this ledger ran these commands elsewhere"
    if found.moved is not None:
        moved = f"error on another host, by other builds: {_error_text(found.moved)}"
    write_prose(f"{moved}\n", environ, stdout)
    _show_choices(found, all_rows, environ, stdout)


def _size_text(build: RecordedBuild) -> str:
    sizes = _count(len(build.actions), "action"), _count(len(build.sets), "set"), _count(len(build.hosts), "host")
    parts = ["{} in {} on {}".format(*sizes)]
    parts += [f"{build.local} ran here"] * (build.local > 0)
    parts += [f"{_count(build.wasted, 'award')} came to nothing, and not repeated"] * (build.wasted > 0)
    parts += [f"{_count(build.copies, 'copy', 'copies')}"] * (build.copies > 0)
    return ", ".join(parts)


def _count(number: int, word: str, words: str = "") -> str:
    return f"{number} {word if number == 1 else words or word + 's'}"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.3f} s"


def _verdict(each: Replayed) -> str:
    if each.makespan_s is None:
        return "it does not end"
    if each.ratio is None or not each.shown:
        return "no difference shown: within the model's error"
    return f"{abs(each.ratio - 1.0):.1%} {'longer' if each.ratio > 1.0 else 'shorter'} in the model"


def _error_text(error: Errors) -> str:
    return f"median {error.median:.1%}, 95th percentile {error.p95:.1%}, of {error.actions} actions' seconds"


def _show_choices(found: Replay, all_rows: bool, environ: Mapping[str, str], stdout: TextIO) -> None:
    rows = differing(found)
    if not rows:
        stdout.write("all choices are the recorded ones\n")
        return
    policies = [safe_text(each.policy) for each in found.policies]
    words = frozenset({1, *range(3, 4 + len(policies))})
    sheet = Sheet(("action", "recorded", "took", *policies, "command"), words=words)
    for action in rows if all_rows else rows[:MOST_ROWS]:
        chosen = [each.hosts.get(action.number, "") for each in found.policies]
        hosts = ["the same" if host == action.host else safe_text(host) or "none" for host in chosen]
        took, command = duration_text(action.elapsed_s), brief_text(action.command, COMMAND)
        sheet.rows.append((str(action.number), safe_text(action.host), took, *hosts, command))
    draw_tables([sheet], environ, stdout)
    left = len(rows) - len(sheet.rows)
    if left:
        stdout.write(f"and {left} more; --all shows them\n")
