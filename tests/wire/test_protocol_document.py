"""docs/protocol.md says what the code does: messages, fields, limits, codes, reasons, outcomes and its example."""

import os
import re

import pytest
from wire_vocabulary import case_name

from rakefarm.client.link import BEAT_S as CLIENT_BEAT_S
from rakefarm.client.link import MISSED_BEATS
from rakefarm.client.refusals import PASSING_REASONS
from rakefarm.market.curve import LONGEST_LIST, Curve
from rakefarm.server.action import BEAT_S, SUPPLY_S
from rakefarm.server.staging import MANIFEST_FILES
from rakefarm.wire import Limits
from rakefarm.wire import errors as wire_errors
from rakefarm.wire.messages import (
    AUTHENTICATIONS,
    CLASSES,
    OUTCOMES,
    Input,
    MessageType,
    Need,
    Offer,
    Task,
    Term,
    Variable,
)
from rakefarm.wire.paths import DEPTH, PART_BYTES, PATH_BYTES
from rakefarm.wire.status import Occupant, Space, StoreUse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JUDGES = (
    "market/bid.py",
    "market/needs.py",
    "server/action.py",
    "server/conversation.py",
    "server/delivery.py",
    "server/desk.py",
    "server/staging.py",
)
"""The sources that decline or refuse."""


def read(*names: str) -> str:
    with open(os.path.join(ROOT, *names), encoding="utf-8") as file:
        return file.read()


SPECIFICATION = read("docs", "protocol.md")
PLAIN = re.sub(r"\s+", " ", SPECIFICATION)


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {title}\n(.*?)(?=^#+ |\Z)", SPECIFICATION, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title}"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a table whose first cell is one `word`, by that word."""
    return {
        match[1]: [cell.strip() for cell in match[2].split("|")]
        for match in re.finditer(r"^\| `(\w+)` \|(.*)\|$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("number", list(MessageType), ids=case_name)
def test_every_message_has_its_paragraph_with_every_field(number):
    text = section(number.name)
    for name in CLASSES[number].__struct_fields__:
        assert f"`{name}`" in text, f"{number.name} says nothing of {name}"


def test_paragraphs_stand_in_the_order_of_the_numbers():
    titles = re.findall(r"^### ([A-Z_]+)$", SPECIFICATION, re.MULTILINE)
    assert titles == [number.name for number in MessageType]


def test_limits_are_those_of_the_code():
    limits, text = Limits(), section("Limits")
    for value in (limits.payload, limits.message, limits.greeting, limits.body, MANIFEST_FILES):
        assert f"{value:,}" in text
    assert f"{PATH_BYTES} bytes, {DEPTH} parts, {PART_BYTES} bytes a part" in text
    assert f"{PATH_BYTES} bytes, {DEPTH} parts, and {PART_BYTES} bytes a part" in section("Paths")


def test_beats_are_those_of_both_ends():
    assert BEAT_S == CLIENT_BEAT_S
    text = " ".join(section("Liveness").split())
    assert f"PROGRESS every {BEAT_S:g} s" in text
    assert f"({BEAT_S * MISSED_BEATS:g} s, and a second's grace)" in text
    assert f"sends nothing for {SUPPLY_S:g} s" in text


def test_error_codes_are_those_of_the_code():
    codes = {kind.code for kind in vars(wire_errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    server = "".join([read("rakefarm", "server", name) for name in ("conversation.py", "admission.py")])
    codes |= set(re.findall(r'(?:Refused|NotAdmitted|_give_up)\(\s*"(\w+)"', server))
    assert set(rows(section("Errors"))) == codes


def test_reasons_to_decline_are_those_of_the_code():
    documented = rows(section("Reasons to decline"))
    sources = "".join([read("rakefarm", *name.split("/")) for name in JUDGES])
    given = set(re.findall(r'(?:Refusal|Decline|StagingFailed)\(\s*"(\w+)"', sources))
    assert given <= set(documented)
    assert all(f'"{reason}"' in sources for reason in documented), "each is given somewhere"
    assert {reason for reason, cells in documented.items() if cells[-1] == "yes"} == PASSING_REASONS


def test_authentications_are_those_of_the_code():
    documented = {word: cells[0] for word, cells in rows(section("WELCOME")).items() if word != "word"}
    assert documented == AUTHENTICATIONS


def test_outcomes_are_those_of_the_code():
    documented = {word: cells[0] for word, cells in rows(section("RESULT")).items() if word != "outcome"}
    assert documented == OUTCOMES


def test_terms_of_a_price_are_those_of_the_code():
    documented = rows(section("Structures"))
    given = set(re.findall(r'(?:terms\[|terms = \{)"(\w+)"', read("rakefarm", "market", "bid.py")))
    assert given == documented.keys() - {"term", "field"} - set(Curve.__struct_fields__)


def test_a_curves_fields_are_explained_in_their_order():
    fields = [word for word in rows(section("Structures")) if word in Curve.__struct_fields__]
    assert fields == list(Curve.__struct_fields__)
    assert f"at most the first {LONGEST_LIST} of them" in PLAIN
    assert f"| times in a curve | 1 to {LONGEST_LIST} |" in SPECIFICATION


@pytest.mark.parametrize("structure", [Need, Task, Curve, Term, Offer, Input, Variable, Occupant, StoreUse, Space])
def test_every_structure_is_explained_with_every_field(structure):
    (text,) = re.findall(
        rf"^\*\*{structure.__name__}\*\*(.*?)(?=^\*\*|\Z)", section("Structures"), re.MULTILINE | re.DOTALL
    )
    for name in structure.__struct_fields__:
        assert re.search(rf"\b{name}\b", text), f"{structure.__name__} says nothing of {name}"


def test_phases_are_those_of_the_code():
    sources = "".join(read("rakefarm", "server", name) for name in ("action.py", "conversation.py"))
    given = set(re.findall(r'(?:Progress\(|_phase = )"(\w+)"', sources))
    assert given == {"waiting", "queued", "running"}
    assert all(f"`{phase}`" in section("PROGRESS") for phase in given)
    assert "phase `waiting`" in section("Liveness")


def test_the_worked_example_is_right():
    """The same bytes that test_messages_golden sends."""
    block = re.search(r"```\n(00 00 00 00 00 00 00 0a.*?)```", SPECIFICATION, re.DOTALL)
    assert block
    lines = [re.match(r"\s*((?:[0-9a-f]{2}\s+)+)", line)[1] for line in block[1].splitlines()]
    expected = (
        "000000000000000a"
        "0000000000000060"
        "0000000000000004"
        "6c696e6b"
        "000000000000001c"
        "0000000000000014"
        "0000000000000003"
        "637075"
        "0000000000000001"
        "32"
        "0000000000000008"
        "0000000000001000"
        "0000000000000008"
        "3ff8000000000000"
        "0000000000000008"
        "0000000004000000"
        "0000000000000000"
    )
    assert "".join("".join(lines).split()) == expected


def test_links_inside_the_document_lead_somewhere():
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", SPECIFICATION, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([\w-]+)\)", PLAIN))
    assert links <= titles and links
