"""The command line of a build: every wrong use is one clear line and status 2, before anything runs."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rakefarm import cli


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose Rakefile leaves a trace when it is run; nobody's own settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("RAKEFARM_HOSTS", "RAKEFARM_JOBS", "RAKEFARM_FALLBACK"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "Rakefile").write_text("a:\n\ttouch ran\n")
    return tmp_path


def complaint_of(capfd: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line on standard error of a use that is refused."""
    assert cli.build_main(options) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert not Path("ran").exists()
    assert err.endswith("\n") and "Traceback" not in err
    (line,) = err.splitlines()
    return line


def test_a_right_use_runs_it() -> None:
    assert cli.build_main(["--progress", "none"]) == 0
    assert Path("ran").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["-j", "0"], "-j 0: not a whole number"),
        (["-j", "many"], "-j many: not a whole number"),
        (["-j", "99999999999999999999"], "-j 9999"),
        (["-j", "²"], "-j ²: not a whole number"),
        (["-C", "none"], "-C none: No such file or directory"),
        (["-C", "Rakefile"], "-C Rakefile: Not a directory"),
        (["-f", "A", "B"], "two Rakefiles are named, A and B"),
        (["none.rake"], "none.rake: no such file"),
        (["-f", "."], ".: is a directory"),
        (["--hosts", "a:b:c"], "--hosts: 'a:b:c'"),
        (["--hosts", "host:99999"], "--hosts: 'host:99999'"),
        (["--hosts", ""], "--hosts '' names no host: write one"),
        (["--hosts", " , "], "--hosts ' , ' names no host: write one"),
        (["--key-file", "none.key"], "none.key"),
        (["--fallback", "maybe"], "--fallback: invalid choice: 'maybe'"),
        (["--color", "sometimes"], "--color: invalid choice"),
        (["--config", "none.toml"], "none.toml: No such file or directory"),
        (["--json=/none/such"], "/none/such"),
    ],
)
def test_a_wrong_option(capfd: pytest.CaptureFixture[str], options: list[str], complaint: str) -> None:
    assert complaint in complaint_of(capfd, *options)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("RAKEFARM_JOBS", "none", "-j none"),
        ("RAKEFARM_FALLBACK", "maybe", "fallback 'maybe'"),
        ("RAKEFARM_HOSTS", "a:b:c", "RAKEFARM_HOSTS: 'a:b:c'"),
        ("RAKEFARM_HOSTS", " ,", "RAKEFARM_HOSTS ' ,' names no host"),
    ],
)
def test_a_wrong_variable(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(name, value)
    assert complaint in complaint_of(capfd)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jobs = 'x'\n", "client.toml: jobs: 'x'"),
        ("job = 1\n", "client.toml: unknown key 'job'"),
        ("fallback = 'maybe'\n", "client.toml: fallback: 'maybe'"),
        ("hosts = ['a:b:c']\n", "hosts: 'a:b:c'"),
    ],
)
def test_a_wrong_configuration(capfd: pytest.CaptureFixture[str], project: Path, text: str, complaint: str) -> None:
    directory = project / "config" / "rakefarm"
    directory.mkdir(parents=True)
    (directory / "client.toml").write_text(text)
    assert complaint in complaint_of(capfd)


@pytest.mark.parametrize(
    ("main", "words", "beginning", "see"),
    [
        (cli.main, ["quote", "--nope"], "rakefarm: error: ", "rakefarm quote --help"),
        (cli.main, ["quote", "--hosts"], "rakefarm: error: ", "rakefarm quote --help"),
        (cli.main, ["quote", "--hosts", ",", "cc"], "rakefarm: error: --hosts ','", "RF002"),
        (cli.main, ["nope"], "rakefarm: error: ", "rakefarm --help"),
        (cli.main, ["key", "nope"], "rakefarm: error: ", "rakefarm key --help"),
        (cli.main, ["serve", "--nope"], "rakeserver: error: ", "rakefarm serve --help"),
        (cli.build_main, ["--nope"], "rakefarm: error: ", "rake-p --help"),
        (cli.serve_main, ["--nope"], "rakeserver: error: ", "rakeserver --help"),
        (cli.serve_main, ["--slots", "x"], "rakeserver: error: slots 'x'", "RF002"),
    ],
)
def test_mistakes_are_told_in_one_form(
    capfd: pytest.CaptureFixture[str], main: Callable[[list[str]], int], words: list[str], beginning: str, see: str
) -> None:
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(beginning) and see in err and " [RF00" in err


def test_help_is_of_what_people_use(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.serve_main(["--help"]) == 0 and cli.build_main(["--help"]) == 0
    out = capfd.readouterr().out
    assert "-vv" in out
    assert not any(option in out for option in ("--until-eof", "--shared-slots", "--job-server"))


@pytest.mark.parametrize("main", [cli.main, cli.build_main, cli.serve_main])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_no_mistake(capfd: pytest.CaptureFixture[str], main: object, option: str) -> None:
    assert main([option]) == 0  # type: ignore[operator]
    assert capfd.readouterr().out


def test_a_fault_of_ours_is_one_line_and_a_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr("rakefarm.commands.build.client_settings", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cli.build_main([]) == 70
    (line,) = capfd.readouterr().err.splitlines()
    assert "ZeroDivisionError: made up" in line
    (report,) = tmp_path.glob("rakefarm-fault-*.log")
    assert str(report) in line
    assert "Traceback" in report.read_text()
