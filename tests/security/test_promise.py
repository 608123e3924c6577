"""The promise stands in three places, in the same words; the settings' defaults in two."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rakefarm.config import ClientSettings, ServerSettings
from rakefarm.security import PROMISE

ROOT = Path(__file__).resolve().parents[2]


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).lower()


def test_the_promise_is_the_same_everywhere() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "rakefarm.server", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    for text in (shown, (ROOT / "README.md").read_text(), (ROOT / "docs" / "security.md").read_text()):
        assert plain(PROMISE) in plain(text)


@pytest.mark.parametrize(("file", "settings"), [("server.toml", ServerSettings()), ("client.toml", ClientSettings())])
def test_every_setting_of_safety_is_shown_with_its_default(file: str, settings: object) -> None:
    text = (ROOT / "configs" / file).read_text()
    names = ["key_file", "key_name", "tls_certificate", "tls_private_key", "tls_authority", "insecure", "audit_log"]
    names += ["proof_s", "unproven", "unproven_per_address", "penalty_s", "minimum_rate", "idle_s", "unacknowledged_s"]
    for name in names:
        if hasattr(settings, name):
            value = getattr(settings, name)
            told = {"": '""', False: "false", 1024: '"1K"'}.get(value, str(value))
            assert re.search(rf"^# {name} = {re.escape(told)} ", text, re.MULTILINE), name


def test_the_limits_are_those_that_are_documented() -> None:
    settings, text = ServerSettings(), (ROOT / "docs" / "security.md").read_text()
    text = text.partition("## Floods")[2].partition("\n## ")[0]
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)}
    assert rows == {
        "proof_s": f"{settings.proof_s:g} s",
        "unproven": str(settings.unproven),
        "unproven_per_address": str(settings.unproven_per_address),
        "penalty_s": f"{settings.penalty_s:g} s",
        "minimum_rate": f"{settings.minimum_rate >> 10} KiB/s",
        "idle_s": f"{settings.idle_s / 3600:g} h",
        "unacknowledged_s": f"{settings.unacknowledged_s:g} s",
    }
