"""Files that come back: inside the working directory, whole or not at all, with the right permission bits."""

import errno
import hashlib
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rakefarm.client import install, outputs
from rakefarm.client.outputs import Claims, Incoming, OutputError, current_umask
from rakefarm.wire.errors import Malformed, UnsafePath
from rakefarm.wire.messages import Output


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a neighbour that nothing may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(params=["unnamed", "named"])
def incoming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Incoming]:
    """Outputs on a file system that has O_TMPFILE, and on one that has not."""
    if request.param == "named":
        without_tmpfile(monkeypatch)
    incoming = Incoming()
    yield incoming
    incoming.close()


def without_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def refuse(path: bytes, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real_open(path, flags, mode, **more)

    monkeypatch.setattr(outputs.os, "open", refuse)


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda mask: (os.umask(mask), None)[1]
    os.umask(before)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Permission bits hold for us, whoever runs the tests."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def give(incoming: Incoming, path: bytes, content: bytes = b"new", mode: int = 0o644) -> None:
    """One output arrives in two pieces."""

    def body(sink: Callable[[bytes], object]) -> None:
        sink(content[:2])
        sink(content[2:])

    incoming.receive(Output(path, mode, hashlib.sha256(content).digest()), body)


def tree(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


# --- all or nothing -------------------------------------------------------------------------------------


def obstruct(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    """Nothing can get this name, and nobody can tell before."""
    for call in ("link", "replace"):
        real = getattr(os, call)

        def refuse(source: bytes, target: bytes, real: Callable[..., None] = real, **more: object) -> None:
            if os.path.basename(target) == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(source, target, **more)

        monkeypatch.setattr(install.os, call, refuse)


@pytest.mark.parametrize("obstacle", ["directory", "link", "file", "late", "each other"])
def test_when_one_is_not_installed_none_is(
    incoming: Incoming, project: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    (project / "old").write_bytes(b"before")
    (project / "hers").symlink_to("old")
    for path in (b"old", b"hers", b"new", b"made/deep/er", b"z/last", b"zz"):
        give(incoming, path)
    if obstacle == "directory":
        (project / "zz").mkdir()
    elif obstacle == "link":
        (project / "z").symlink_to("../outside")
    elif obstacle == "file":
        (project / "z").write_bytes(b"file")
    elif obstacle == "late":
        obstruct(monkeypatch, b"zz")
    else:
        give(incoming, b"z")
    before, kept = tree(project), (project / "old").stat()
    named = {path.name for path in project.glob(".rakefarm-*")}
    with pytest.raises(OutputError, match="can't write z"):
        incoming.install()
    incoming.close()
    assert tree(project) == before - named
    assert (project / "old").read_bytes() == b"before" and os.path.samestat((project / "old").stat(), kept)
    assert (project / "hers").readlink() == Path("old")
    assert tree(project.parent / "outside") == set()


def test_old_files_leave_no_second_name(incoming: Incoming, project: Path) -> None:
    for name in ("a", "b", "c"):
        (project / name).write_bytes(b"before")
        give(incoming, name.encode())
    incoming.install()
    assert tree(project) == {"a", "b", "c"}
    assert {(project / name).read_bytes() for name in ("a", "b", "c")} == {b"new"}


def test_a_name_that_another_has_given_meanwhile_stays(
    incoming: Incoming, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(incoming, b"a")
    give(incoming, b"b")
    other = Incoming()
    give(other, b"a", b"other")
    real = os.fchmod
    obstruct(monkeypatch, b"b")

    calls = iter([lambda: None, other.install, lambda: None])

    def interfere(descriptor: int, mode: int) -> None:
        next(calls)()
        real(descriptor, mode)

    monkeypatch.setattr(install.os, "fchmod", interfere)
    with pytest.raises(OutputError):
        incoming.install()
    incoming.close()
    other.close()
    assert tree(project) == {"a"} and (project / "a").read_bytes() == b"other"


# --- installing -----------------------------------------------------------------------------------------


def test_nothing_stands_under_its_name_before_all_is_there(incoming: Incoming, project: Path) -> None:
    give(incoming, b"a.o")
    give(incoming, b"b.o")
    assert not tree(project) & {"a.o", "b.o"}
    assert incoming.paths == ("a.o", "b.o")
    incoming.install()
    assert tree(project) == {"a.o", "b.o"}
    assert (project / "a.o").read_bytes() == b"new"


def test_directories_are_made(incoming: Incoming, project: Path) -> None:
    give(incoming, b"out/deep/er/a.o")
    incoming.install()
    assert (project / "out/deep/er/a.o").read_bytes() == b"new"


def test_an_empty_file_arrives(incoming: Incoming, project: Path) -> None:
    give(incoming, b"empty", b"")
    incoming.install()
    assert (project / "empty").read_bytes() == b""


def test_undecodable_names_survive(incoming: Incoming, project: Path) -> None:
    give(incoming, b"caf\xe9.o")
    assert incoming.paths == (os.fsdecode(b"caf\xe9.o"),)
    incoming.install()
    assert os.listdir(b".") == [b"caf\xe9.o"]


def test_an_existing_file_is_replaced_by_rename(incoming: Incoming, project: Path) -> None:
    (project / "a.o").write_bytes(b"old and longer")
    os.link("a.o", "second-name")
    give(incoming, b"a.o")
    incoming.install()
    assert (project / "a.o").read_bytes() == b"new"
    assert (project / "second-name").read_bytes() == b"old and longer"
    assert tree(project) == {"a.o", "second-name"}


def test_a_link_at_the_name_is_replaced_not_followed(incoming: Incoming, project: Path) -> None:
    victim = project.parent / "outside" / "victim"
    victim.write_bytes(b"precious")
    os.symlink(victim, "a.o")
    give(incoming, b"a.o")
    incoming.install()
    assert victim.read_bytes() == b"precious"
    assert not (project / "a.o").is_symlink()


def test_those_skipped_are_not_installed(incoming: Incoming, project: Path) -> None:
    give(incoming, b"a.o")
    give(incoming, b"b.o")
    incoming.install(frozenset({"a.o"}))
    incoming.close()
    assert tree(project) == {"b.o"}


@pytest.mark.parametrize(
    ("mode", "mask", "expected"),
    [
        (0o644, 0o022, 0o644),
        (0o755, 0o022, 0o755),
        (0o600, 0o022, 0o644),
        (0o700, 0o022, 0o755),
        (0o755, 0o077, 0o700),
        (0o644, 0o027, 0o640),
        (0o777, 0o000, 0o777),
        (0o011, 0o000, 0o666),
    ],
)
def test_only_the_owners_x_counts_and_the_umask_holds(
    incoming: Incoming, project: Path, umask: Callable[[int], None], mode: int, mask: int, expected: int
) -> None:
    umask(mask)
    assert current_umask() == mask
    give(incoming, b"a.out", mode=mode)
    incoming.install()
    assert (project / "a.out").stat().st_mode & 0o7777 == expected


# --- refusing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [b"", b"/etc/passwd", b"../a.o", b"a/../../b", b"a/./b", b"a//b", b"a/", b"a\nb", b"a\0b", b"x" * 256],
)
def test_a_path_that_leads_out_or_lies_is_refused(incoming: Incoming, project: Path, path: bytes) -> None:
    with pytest.raises(UnsafePath):
        give(incoming, path)
    assert tree(project.parent) == {"outside", "project"}


def test_the_same_path_twice_is_refused(incoming: Incoming) -> None:
    give(incoming, b"a.o")
    with pytest.raises(UnsafePath, match="twice"):
        give(incoming, b"a.o")


def test_content_that_is_not_what_its_digest_says_is_refused(incoming: Incoming, project: Path) -> None:
    with pytest.raises(Malformed, match="digest"):
        incoming.receive(Output(b"a.o", 0o644, bytes(32)), lambda sink: sink(b"other"))
    incoming.close()
    assert tree(project) == set()


@pytest.mark.parametrize("path", [b"link/a.o", b"link/new/deep/a.o"])
def test_a_directory_that_is_a_link_out_is_refused(incoming: Incoming, project: Path, path: bytes) -> None:
    os.symlink("../outside", "link")
    give(incoming, path)
    with pytest.raises(OutputError, match="leads out of the working directory"):
        incoming.install()
    incoming.close()
    assert tree(project.parent / "outside") == set()


def test_a_directory_that_is_a_link_inside_is_used(incoming: Incoming, project: Path) -> None:
    (project / "real").mkdir()
    os.symlink("real", "link")
    give(incoming, b"link/a.o")
    incoming.install()
    assert (project / "real" / "a.o").read_bytes() == b"new"


def test_a_directory_in_the_way_is_told(incoming: Incoming, project: Path) -> None:
    (project / "a.o").mkdir()
    give(incoming, b"a.o")
    with pytest.raises(OutputError, match=r"can't write a\.o: Is a directory"):
        incoming.install()
    incoming.close()
    assert tree(project) == {"a.o"}


def test_a_file_in_the_way_of_a_directory_is_told(incoming: Incoming, project: Path) -> None:
    (project / "out").write_bytes(b"a file")
    give(incoming, b"out/a.o")
    with pytest.raises(OutputError, match=r"can't write out/a\.o"):
        incoming.install()
    incoming.close()
    assert tree(project) == {"out"}
    assert (project / "out").read_bytes() == b"a file"


def test_a_read_only_directory_is_told(project: Path, unprivileged: None) -> None:
    os.seteuid(0) if not os.getuid() else None
    project.chmod(0o555)
    os.seteuid(65534) if not os.getuid() else None
    incoming = Incoming()
    with pytest.raises(OutputError, match=r"can't write .*/a\.o: Permission denied"):
        give(incoming, b"a.o")
    incoming.close()
    os.seteuid(0) if not os.getuid() else None
    assert tree(project) == set()


# --- leaving nothing ------------------------------------------------------------------------------------


def test_an_attempt_that_is_given_up_leaves_nothing(incoming: Incoming, project: Path) -> None:
    (project / "out").mkdir()
    give(incoming, b"a.o")
    give(incoming, b"out/b.o")
    give(incoming, b"new/c.o")
    incoming.close()
    incoming.close()
    assert tree(project) == {"out"}
    assert incoming.paths == ()


def test_a_body_that_breaks_off_leaves_nothing(incoming: Incoming, project: Path) -> None:
    def body(sink: Callable[[bytes], object]) -> None:
        sink(b"the first half")
        raise ConnectionResetError

    with pytest.raises((OutputError, ConnectionResetError)):
        incoming.receive(Output(b"a.o", 0o644, bytes(32)), body)
    incoming.close()
    assert tree(project) == set()


def test_a_disk_that_does_not_take_it_is_told_and_leaves_nothing(incoming: Incoming, project: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"can't write a\.o: File too large"):
            give(incoming, b"a.o", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    incoming.close()
    assert tree(project) == set()


def test_descriptors_are_given_back(incoming: Incoming) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        give(incoming, b"%d.o" % number)
    incoming.install()
    incoming.close()
    assert len(os.listdir("/proc/self/fd")) == before


# --- two actions, one path ------------------------------------------------------------------------------


def test_the_last_in_file_order_wins_whoever_ends_first() -> None:
    claims = Claims()
    assert claims.claim(1, ("a.o", "log")) == (frozenset(), [])
    assert claims.claim(3, ("c.o", "log")) == (frozenset(), ["log"])
    assert claims.claim(2, ("b.o", "log")) == (frozenset({"log"}), ["log"])


def test_an_attempt_of_the_same_action_claims_again() -> None:
    claims = Claims()
    claims.claim(2, ("a.o",))
    assert claims.claim(2, ("a.o",)) == (frozenset(), [])


def test_a_new_set_begins_without_claims() -> None:
    claims = Claims()
    claims.claim(7, ("a.o",))
    claims.clear()
    assert claims.claim(1, ("a.o",)) == (frozenset(), [])
