"""docs/states.md and the tables in docs/protocol.md are drawn from the code, and fresh."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "scripts", "draw_states.py")


@pytest.fixture
def draw(monkeypatch):
    """The script as a module."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    specification = importlib.util.spec_from_file_location("draw_states", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def copied(tmp_path):
    """A root with a copy of the documents."""
    os.mkdir(tmp_path / "docs")
    for name in ("states.md", "protocol.md"):
        shutil.copy(os.path.join(ROOT, "docs", name), tmp_path / "docs" / name)
    return tmp_path


def test_the_documents_are_fresh():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stale_document_is_named_and_left_alone(draw, copied, capsys):
    path = copied / "docs" / "states.md"
    changed = path.read_text().replace("READY", "STEADY")
    path.write_text(changed)
    assert draw.main(["--check"], str(copied)) == 1
    assert "docs/states.md is stale" in capsys.readouterr().err
    assert path.read_text() == changed


@pytest.mark.parametrize("name", ["states.md", "protocol.md"])
def test_a_stale_document_is_drawn_anew(draw, copied, name):
    path = copied / "docs" / name
    fresh = path.read_text()
    path.write_text(fresh.replace("| 10 | QUOTE_REQUEST |", "| 9 | QUERY |").replace("| READY | client |", "| R | c |"))
    assert path.read_text() != fresh
    assert draw.main(["--check"], str(copied)) == 1
    assert draw.main([], str(copied)) == 0
    assert path.read_text() == fresh
    assert draw.main(["--check"], str(copied)) == 0


def test_missing_documents_and_markers(draw, copied):
    os.unlink(copied / "docs" / "states.md")
    assert draw.main(["--check"], str(copied)) == 1
    assert draw.main([], str(copied)) == 0
    (copied / "docs" / "protocol.md").write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        draw.main([], str(copied))
