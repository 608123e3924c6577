"""The compiled launcher: made by whatever compiler there is, statically where that can be."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rakefarm.cc.launcher import LauncherError, build_launcher

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def build(tmp_path: Path, script: str) -> tuple[str, dict[str, str]]:
    """With a `cc` that is this script."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cc").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "cc").chmod(0o755)
    environ = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return build_launcher(environ), environ


def calls_compiler(launcher: str, environ: dict[str, str], tmp_path: Path) -> bool:
    """Without a helper, and switched off, it becomes the Python wrapper, which becomes the compiler."""
    variables = {**environ, "RAKEFARM_CC": "off", "RAKEFARM_CC_DIRECTORY": str(tmp_path / "none")}
    said = subprocess.run([launcher, "gcc", "--version"], env=variables, capture_output=True, timeout=60)
    return said.returncode == 0 and b"Free Software Foundation" in said.stdout


def test_it_is_linked_statically_where_that_can_be(tmp_path: Path) -> None:
    launcher, environ = build(tmp_path, f'echo "$@" >>"{tmp_path}/words"; exec gcc "$@"')
    assert "-static" in (tmp_path / "words").read_text().splitlines()[0].split()
    assert calls_compiler(launcher, environ, tmp_path)
    assert build_launcher(environ) == launcher
    assert len((tmp_path / "words").read_text().splitlines()) <= 2, "it is not made again"


def test_without_a_static_library_it_is_linked_as_usual(tmp_path: Path) -> None:
    script = 'case "$*" in *-static*) echo "cannot find -lc" >&2; exit 1;; esac; exec gcc "$@"'
    launcher, environ = build(tmp_path, script)
    assert calls_compiler(launcher, environ, tmp_path)


def test_a_compiler_that_can_not_make_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="no luck"):
        build(tmp_path, "echo no luck >&2; exit 1")
    assert not list((tmp_path / "cache").rglob("rakefarm-cc"))
