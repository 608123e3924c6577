"""Draw the conversation from its table: docs/states.md, and the table of messages inside docs/protocol.md.

With `--check` nothing is written; exit status 1 says that one of them is stale, and which.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from rakefarm.wire import messages  # noqa: E402  the path comes first
from rakefarm.wire.messages import CLASSES, STREAMED, MessageType  # noqa: E402
from rakefarm.wire.state import SPEAKER, TRANSITIONS, State  # noqa: E402

BEGIN = "<!-- generated: messages -->"
END = "<!-- end -->"
WIRE_TYPES = {int: "u64", float: "f64", str: "string", bytes: "bytes"}
STRUCTURES = (
    messages.Need,
    messages.Task,
    messages.Curve,
    messages.Term,
    messages.Offer,
    messages.Input,
    messages.Variable,
    messages.Occupant,
    messages.Space,
    messages.StoreUse,
)

HEAD = """\
# The states of a conversation

Drawn by `scripts/draw_states.py` from the table in `rakefarm/wire/state.py`; a test keeps it fresh. What the messages
mean is in [protocol.md](protocol.md).

"""


def wire_type(annotation: Any) -> str:
    """How the specification calls a field's type."""
    if annotation in WIRE_TYPES:
        return WIRE_TYPES[annotation]
    if get_origin(annotation) is tuple:
        return f"list of {wire_type(get_args(annotation)[0])}"
    return str(annotation.__name__)


def fields_of(cls: Any) -> str:
    """The fields of a message or structure with their types, in the order of the wire."""
    hints = get_type_hints(cls)
    return ", ".join(f"`{name}` {wire_type(hints[name])}" for name in cls.__struct_fields__) or "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def message_tables() -> str:
    """Every message, and every structure inside them."""
    rows = []
    for number in MessageType:
        places = [(sender, state) for state, sender, legal in TRANSITIONS if legal is number]
        senders = " or ".join(dict.fromkeys(sender.value for sender, _ in places))
        states = "any but CLOSED" if number is MessageType.ERROR else ", ".join(state.name for _, state in places)
        streamed = "yes" if number in STREAMED else "no"
        rows.append([str(int(number)), number.name, senders, states, fields_of(CLASSES[number]), streamed])
    structures = [[cls.__name__, fields_of(cls)] for cls in STRUCTURES]
    return (
        table(["number", "message", "sender", "states", "payloads, in order", "body"], rows)
        + "\n"
        + table(["structure", "payloads, in order"], structures)
    )


def diagram() -> str:
    """The table as a mermaid state diagram; ERROR, which leads from everywhere to CLOSED, only once."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.GREETING.name}"]
    arrows: dict[tuple[State, State], list[str]] = {}
    for (before, _, number), after in TRANSITIONS.items():
        if number is not MessageType.ERROR:
            arrows.setdefault((before, after), []).append(number.name)
    for (before, after), names in arrows.items():
        speaker = SPEAKER[before].value
        lines.append(f"    {before.name} --> {after.name}: {speaker} says {' or '.join(names)}")
    error = f"    {State.READY.name} --> {State.CLOSED.name}: ERROR, from any state, by its speaker"
    return "\n".join([*lines, error, f"    {State.CLOSED.name} --> [*]", "```", ""])


def states_page() -> str:
    """All of docs/states.md."""
    parts = [HEAD, diagram(), "\n## The states\n\n"]
    speakers = {state: SPEAKER[state].value if state in SPEAKER else "nobody" for state in State}
    parts.append(table(["state", "speaks", "meaning"], [[s.name, speakers[s], s.value] for s in State]))
    parts.append(
        "\n## The transitions\n\nIn every state but CLOSED its speaker may also send ERROR, which leads to CLOSED.\n\n"
    )
    rows = [
        [before.name, sender.value, number.name, after.name]
        for (before, sender, number), after in TRANSITIONS.items()
        if number is not MessageType.ERROR
    ]
    parts.append(table(["in", "sender", "message", "leads to"], rows))
    return "".join(parts)


def refreshed(specification: str) -> str:
    """docs/protocol.md with its generated part made anew. Raises ValueError when its markers are missing."""
    before, found, rest = specification.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the specification has lost its markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{message_tables()}{END}{after}"


def main(arguments: Sequence[str], root: str = ROOT) -> int:
    """Write both documents below `root`, or with `--check` say which are stale. Answers the exit status."""
    check = "--check" in arguments
    states = os.path.join(root, "docs", "states.md")
    protocol = os.path.join(root, "docs", "protocol.md")
    wanted = {states: states_page(), protocol: refreshed(_read(protocol))}
    stale = [path for path, text in wanted.items() if _read(path) != text]
    for path in stale:
        if check:
            print(f"{os.path.relpath(path, root)} is stale: run python scripts/draw_states.py", file=sys.stderr)
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(wanted[path])
    return 1 if check and stale else 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
