"""`docs/ledger.md` names the fields of every recorded event, and no others."""

import re
from pathlib import Path

from msgspec import structs

from rakefarm.client.ledger import RECORDED
from rakefarm.config import ClientSettings
from rakefarm.events import Event

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "ledger.md").read_text(encoding="utf-8")


def fields_of(section: str) -> set[str]:
    """What the first column of the section's table names."""
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_field_of_every_event() -> None:
    fields = DOCUMENT.split("## Fields")[1].split("\n## ")[0]
    common, *sections = re.split(r"^\*\*`(\w+)`\*\*", fields, flags=re.MULTILINE)
    assert fields_of(common) == {"schema", "event", "run_id", "time_s", "at"}
    documented = {name: fields_of(text) for name, text in zip(sections[::2], sections[1::2], strict=True)}
    own = {field.name for field in structs.fields(Event)}
    assert documented == {kind.name: {field.name for field in structs.fields(kind)} - own for kind in RECORDED}


def test_every_setting() -> None:
    table = DOCUMENT.split("| in `client.toml`")[1].split("\n\n")[0]
    assert fields_of(table) == {
        field.name for field in structs.fields(ClientSettings) if field.name.startswith("ledger")
    }
