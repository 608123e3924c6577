"""Directories that commands run in: private, swept when their owner is dead, removed whatever a command left."""

import fcntl
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_vocabulary import other_process

from rakefarm.server import sandbox
from rakefarm.server.sandbox import (
    ActionDirectory,
    SandboxError,
    ServerDirectory,
    WorkerSandbox,
    choose_root,
    remove_tree,
)


def parent_of(root: Path) -> Path:
    return root / f"rakefarm-{os.geteuid()}"


def an_action(worker: bytes) -> ActionDirectory:
    """An action's directory in that of a worker's first executor."""
    os.mkdir(worker + b"/executor-0")
    return ActionDirectory(worker + b"/executor-0")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory that must stay as it is."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "precious").write_text("keep", encoding="utf-8")
    yield place
    assert [file.name for file in place.iterdir()] == ["precious"]
    assert (place / "precious").read_text(encoding="utf-8") == "keep"


# --- the server's directory -----------------------------------------------------------------------------


def test_it_is_private_and_goes_with_its_parent(tmp_path: Path) -> None:
    directory = ServerDirectory(str(tmp_path))
    assert os.path.dirname(directory.path) == str(parent_of(tmp_path))
    for path in (directory.path, parent_of(tmp_path)):
        # Where root runs it, those who run commands may pass.
        assert stat.S_IMODE(os.stat(path).st_mode) == (0o700 if os.geteuid() else 0o711)
    directory.remove()
    assert not list(tmp_path.iterdir())


def test_the_parent_stays_while_another_server_uses_it(tmp_path: Path) -> None:
    first, second = ServerDirectory(str(tmp_path)), ServerDirectory(str(tmp_path))
    assert first.path != second.path
    first.remove()
    assert os.listdir(parent_of(tmp_path)) == [os.path.basename(second.path)]
    second.remove()
    assert not list(tmp_path.iterdir())


def test_a_living_servers_directory_is_not_swept(tmp_path: Path) -> None:
    with other_process(lambda: ServerDirectory(str(tmp_path))):
        (living,) = parent_of(tmp_path).iterdir()
        ServerDirectory(str(tmp_path)).remove()
        assert living.is_dir()


def test_a_dead_servers_directory_is_swept(tmp_path: Path) -> None:
    def crash() -> None:
        box = an_action(WorkerSandbox(ServerDirectory(str(tmp_path)).worker_directory(0)).path).box
        Path(os.fsdecode(box), "left").touch()

    with other_process(crash):
        (dead,) = parent_of(tmp_path).iterdir()
    assert dead.is_dir()
    directory = ServerDirectory(str(tmp_path))
    assert not dead.exists()
    assert os.path.isdir(directory.path)


def test_a_worker_that_lives_on_does_not_keep_a_dead_servers_directory(tmp_path: Path) -> None:
    """Only the listener holds the lock: a child that has let go of it does not count."""
    directory = ServerDirectory(str(tmp_path))
    with other_process(directory.close_in_child):
        os.close(directory._lock)
        ServerDirectory(str(tmp_path)).remove()
        assert not os.path.exists(directory.path)


def test_what_is_not_a_servers_directory_is_left_alone(tmp_path: Path) -> None:
    parent = parent_of(tmp_path)
    (parent / "mine").mkdir(parents=True)
    (parent / "file").touch()
    ServerDirectory(str(tmp_path)).remove()
    assert sorted(os.listdir(parent)) == ["file", "mine"]


def test_a_sweep_follows_no_link(tmp_path: Path, elsewhere: Path) -> None:
    parent = parent_of(tmp_path)
    parent.mkdir()
    (elsewhere / "lock").touch()
    (parent / "server-link").symlink_to(elsewhere)
    (parent / "server-locklink").mkdir()
    (parent / "server-locklink" / "lock").symlink_to(elsewhere / "lock")
    ServerDirectory(str(tmp_path)).remove()
    (elsewhere / "lock").unlink()


def test_a_link_in_place_of_the_parent_is_refused(tmp_path: Path, elsewhere: Path) -> None:
    parent_of(tmp_path).symlink_to(elsewhere)
    with pytest.raises(SandboxError, match="not a directory of ours"):
        ServerDirectory(str(tmp_path))


def test_a_strangers_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    (tmp_path / f"rakefarm-{stranger}").mkdir()
    with pytest.raises(SandboxError, match="not a directory of ours"):
        ServerDirectory(str(tmp_path))
    assert not os.listdir(tmp_path / f"rakefarm-{stranger}")


def test_a_file_in_place_of_the_parent_is_refused(tmp_path: Path) -> None:
    parent_of(tmp_path).touch()
    with pytest.raises(SandboxError):
        ServerDirectory(str(tmp_path))


@pytest.mark.parametrize("root", ["missing", "file"])
def test_a_place_that_can_not_be_written_is_told_with_what_to_do(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError) as caught:
        ServerDirectory(str(tmp_path / root))
    assert str(tmp_path / root) in str(caught.value)
    assert "TMPDIR" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SandboxError, match="Permission denied"):
            ServerDirectory(str(tmp_path))
    finally:
        tmp_path.chmod(0o700)


def test_the_configured_place_comes_before_tmpdir_before_memory() -> None:
    assert choose_root("/configured", "/tmpdir") == "/configured"
    assert choose_root("", "/tmpdir") == "/tmpdir"
    assert choose_root("", "") in ("/dev/shm", "/tmp", os.environ.get("TMPDIR", "/tmp"))


def test_memory_without_room_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "ROOMY_BYTES", 1 << 62)
    assert choose_root("", "") != "/dev/shm"


def test_the_lock_is_held(tmp_path: Path) -> None:
    directory = ServerDirectory(str(tmp_path))
    with (
        open(os.path.join(directory.path, "lock"), "rb") as lock,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    directory.remove()


# --- a worker's and an action's -------------------------------------------------------------------------


def test_an_action_has_a_box_and_scratch_space_of_its_own(tmp_path: Path) -> None:
    worker = WorkerSandbox(str(tmp_path / "worker-0"))
    action = an_action(worker.path)
    assert all(os.path.isdir(path) and not os.listdir(path) for path in (action.box, action.tmp))
    assert action.remove()
    assert os.listdir(worker.path + b"/executor-0") == []
    worker.remove()
    assert not list(tmp_path.iterdir())


def test_an_action_begins_in_an_empty_directory_or_not_at_all(tmp_path: Path) -> None:
    ActionDirectory(os.fsencode(tmp_path))
    with pytest.raises(FileExistsError):
        ActionDirectory(os.fsencode(tmp_path))


def test_a_new_worker_finds_nothing_of_the_one_before(tmp_path: Path) -> None:
    """One that was killed in mid-action leaves directories whose numbers the next one uses, too."""
    an_action(WorkerSandbox(str(tmp_path / "worker-0")).path)
    assert os.listdir(WorkerSandbox(str(tmp_path / "worker-0")).path) == []


def test_directories_on_the_way_to_a_file_are_made(tmp_path: Path) -> None:
    directory = ActionDirectory(os.fsencode(tmp_path))
    assert directory.locate(b"a/b/c") == directory.box + b"/a/b/c"
    assert directory.locate(b"a/b/d") == directory.box + b"/a/b/d"
    assert directory.locate(b"e") == directory.box + b"/e"
    assert os.path.isdir(directory.box + b"/a/b") and os.listdir(directory.box) == [b"a"]


# --- removing -------------------------------------------------------------------------------------------


def leave_links(box: Path, elsewhere: Path) -> None:
    (box / "to-file").symlink_to(elsewhere / "precious")
    (box / "to-directory").symlink_to(elsewhere)
    (box / "sub").mkdir()
    (box / "sub" / "up").symlink_to("..")
    (box / "dangling").symlink_to("nowhere")


def leave_special_files(box: Path, elsewhere: Path) -> None:
    os.mkfifo(box / "pipe")
    where = os.getcwd()
    os.chdir(box)  # the name of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind("socket")
    finally:
        os.chdir(where)


def leave_locked_directories(box: Path, elsewhere: Path) -> None:
    (box / "a" / "b").mkdir(parents=True)
    (box / "a" / "b" / "file").touch()
    (box / "a" / "b").chmod(0)
    (box / "a").chmod(0)
    box.chmod(0o500)


def leave_odd_names(box: Path, elsewhere: Path) -> None:
    for name in (b"\xff\xfe", b"line\nfeed", b" ", b"-rf", b"..."):
        Path(os.fsdecode(os.fsencode(str(box)) + b"/" + name)).touch()


def leave_a_deep_tree(box: Path, elsewhere: Path) -> None:
    """Deeper than a path may be long, and than Python's stack."""
    where = os.open(box, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=where)
        below = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=where)
        os.close(where)
        where = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=where))
    os.close(where)


def leave_a_wide_tree(box: Path, elsewhere: Path) -> None:
    for number in range(30):
        (box / str(number) / "x").mkdir(parents=True)
        for name in range(10):
            (box / str(number) / "x" / str(name)).touch()


@pytest.mark.parametrize(
    "leave",
    [
        leave_links,
        leave_special_files,
        leave_locked_directories,
        leave_odd_names,
        leave_a_deep_tree,
        leave_a_wide_tree,
    ],
)
def test_an_action_is_removed_whatever_its_command_left(tmp_path: Path, elsewhere: Path, leave) -> None:  # type: ignore[no-untyped-def]
    worker = WorkerSandbox(str(tmp_path / "worker-0"))
    directory = an_action(worker.path)
    leave(Path(os.fsdecode(directory.box)), elsewhere)
    try:
        assert directory.remove()
        assert os.listdir(worker.path + b"/executor-0") == []
    finally:  # whatever it was, the test runner could not remove it either
        subprocess.run(["rm", "-rf", worker.path], check=True)


def with_inputs(place: Path, *paths: bytes) -> ActionDirectory:
    directory = ActionDirectory(os.fsencode(place))
    for path in paths:
        Path(os.fsdecode(directory.locate(path))).touch()
    return directory


@pytest.mark.parametrize("count", [1, 3, 100])
def test_what_is_known_to_be_there_is_removed_without_a_look_at_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    directory = with_inputs(tmp_path, b"a", *(b"home/%d/x/file" % number for number in range(count)))
    directory.make_way(b"home/build/a.o")
    directory.expect(b"home/build/a.o")
    Path(os.fsdecode(directory.box), "home/build/a.o").touch()
    looked: list[str] = []
    monkeypatch.setattr(sandbox, "remove_tree", lambda path: looked.append(path) or remove_tree(path))
    assert directory.remove()
    assert list(tmp_path.iterdir()) == []
    assert bool(looked) == (count == 100), "so many directories are not held open"


def test_a_directory_that_has_become_a_link_leads_nowhere(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "executor").mkdir()
    directory = with_inputs(tmp_path / "executor", b"a/precious", b"b/elsewhere/precious")
    box = Path(os.fsdecode(directory.box))
    shutil.rmtree(box / "a")
    (box / "a").symlink_to(elsewhere)
    (box / "b").rename(box / "c")
    (box / "b").symlink_to(elsewhere.parent)
    assert directory.remove()
    assert list((tmp_path / "executor").iterdir()) == []


def test_what_was_made_in_a_directory_of_the_commands_own_is_removed_too(tmp_path: Path) -> None:
    directory = with_inputs(tmp_path, b"a/b")
    Path(os.fsdecode(directory.box), "own/dir").mkdir(parents=True)
    Path(os.fsdecode(directory.box), "own/dir/made").touch()
    directory.expect(b"own/dir/made")
    assert directory.remove()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_action_and_one_that_removed_itself_are_no_trouble(tmp_path: Path) -> None:
    assert ActionDirectory(os.fsencode(tmp_path)).remove()
    gone = ActionDirectory(os.fsencode(tmp_path))
    shutil.rmtree(gone.box)
    shutil.rmtree(gone.tmp)
    assert gone.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_the_tree_is_removed_and_not_followed(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "link").symlink_to(elsewhere)
    remove_tree(str(tmp_path / "link"))


def test_a_tree_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "missing"))
    assert not list(tmp_path.iterdir())


def test_a_relative_place_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = ServerDirectory("here/..")
    assert directory.path.startswith(str(tmp_path))
    directory.remove()
