"""What a command made: new and changed files, told by their content, and nothing that leads elsewhere."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from server_vocabulary import start_process, wait_until

from rakefarm.digest import no_beat
from rakefarm.snapshot import Made, MissingOutput, Staged, current_tick, find_declared, find_new, open_made, stamp_of

NOBODY = 65534


class Box:
    """A working directory with its inputs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.staged: dict[bytes, Staged] = {}
        self.aliases: dict[bytes, bytes] = {}
        self.started = 0

    def stage(self, name: str, content: bytes, alias: str = "") -> Path:
        """Place an input."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        if alias:
            os.link(file, self.path / alias)
            self.aliases[alias.encode()] = name.encode()
        os.utime(file, ns=(10**18, 10**18))
        self.staged[name.encode()] = Staged(hashlib.sha256(content).digest(), stamp_of(file.lstat()))
        return file

    def start(self) -> None:
        """The command begins now."""
        self.started = current_tick()

    def find(self) -> dict[bytes, bytes]:
        """Path and content of what was made."""
        made = find_new(os.fsencode(self.path), self.staged, self.aliases, self.started, no_beat)
        assert [file.path for file in made] == sorted({file.path for file in made})
        return {file.path: check(file) for file in made}


def check(file: Made) -> bytes:
    with open(open_made(file), "rb") as opened:
        content = opened.read()
    assert file.size == len(content)
    assert file.sha256 == hashlib.sha256(content).digest()
    return content


@pytest.fixture
def box(tmp_path: Path) -> Box:
    (tmp_path / "box").mkdir()
    return Box(tmp_path / "box")


def let_the_tick_pass() -> None:
    before = current_tick()
    wait_until(lambda: current_tick() > before, "the next tick of the file system's clock")


def test_nothing_was_made(box: Box) -> None:
    box.stage("in", b"x")
    box.start()
    assert box.find() == {}


def test_new_files_are_outputs_in_order_of_their_path(box: Box) -> None:
    box.stage("src/a.c", b"int a;")
    box.start()
    (box.path / "z").write_bytes(b"zz")
    (box.path / "src" / "a.o").write_bytes(b"\x7fELF")
    (box.path / "new" / "deep").mkdir(parents=True)
    (box.path / "new" / "deep" / "empty").touch()
    assert box.find() == {b"new/deep/empty": b"", b"src/a.o": b"\x7fELF", b"z": b"zz"}


def test_permission_bits_are_told_and_no_others(box: Box) -> None:
    tool = box.path / "tool"
    tool.touch()
    tool.chmod(0o4755)
    (made,) = find_new(os.fsencode(box.path), {}, {}, 0, no_beat)
    assert made.mode == 0o755


def test_a_changed_input_is_an_output(box: Box) -> None:
    file = box.stage("in", b"before")
    box.start()
    file.write_bytes(b"afterwards")
    assert box.find() == {b"in": b"afterwards"}


def test_an_input_changed_in_place_with_its_size_and_time_kept_is_an_output(box: Box) -> None:
    """However fast: the change may fall into the tick in which the input was written."""
    for number in range(50):
        file = box.stage(f"in{number}", b"before")
        box.start()
        with file.open("r+b") as opened:
            opened.write(b"after!")
        os.utime(file, ns=(10**18, 10**18))
        assert box.find() == {b"in%d" % number: b"after!"}
        file.unlink()


def test_an_untouched_input_of_an_earlier_tick_is_not_even_read(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.stage("in", b"x")
    let_the_tick_pass()
    box.start()
    monkeypatch.setattr("rakefarm.snapshot.hash_descriptor", lambda *_: pytest.fail("it was read"))
    assert box.find() == {}


@pytest.mark.parametrize(
    "touch",
    [
        lambda file: file.touch(),
        lambda file: file.chmod(0o600),
        lambda file: file.write_bytes(file.read_bytes()),
        lambda file: (file.rename(file.with_name("x")), file.with_name("x").rename(file)),
    ],
    ids=["touched", "mode", "written again", "renamed twice"],
)
def test_an_input_with_its_content_unchanged_is_no_output(box: Box, touch: Callable[[Path], object]) -> None:
    file = box.stage("in", b"x")
    let_the_tick_pass()
    box.start()
    touch(file)
    assert box.find() == {}


def test_an_input_replaced_by_rename_is_an_output(box: Box) -> None:
    file = box.stage("in", b"before")
    box.start()
    (box.path / "tmp").write_bytes(b"after!")
    (box.path / "tmp").rename(file)
    assert box.find() == {b"in": b"after!"}


def test_a_removed_input_is_no_output(box: Box) -> None:
    box.stage("in", b"x").unlink()
    box.start()
    assert box.find() == {}


def test_an_input_under_a_new_name_is_an_output(box: Box) -> None:
    file = box.stage("in", b"x")
    box.start()
    file.rename(box.path / "out")
    assert box.find() == {b"out": b"x"}


# --- a second name --------------------------------------------------------------------------------------


def test_an_untouched_file_with_two_names_is_no_output(box: Box) -> None:
    box.stage("in", b"x", alias="also")
    box.start()
    assert box.find() == {}


@pytest.mark.parametrize("name", ["in", "also"])
def test_a_file_changed_by_either_name_is_told_once(box: Box, name: str) -> None:
    box.stage("in", b"x", alias="also")
    box.start()
    (box.path / name).write_bytes(b"y")
    assert box.find() == {b"in": b"y"}


def test_a_second_name_that_became_a_file_of_its_own_is_told(box: Box) -> None:
    box.stage("in", b"x", alias="also")
    box.start()
    (box.path / "also").unlink()
    (box.path / "also").write_bytes(b"y")
    assert box.find() == {b"also": b"y"}


def test_a_first_name_that_went_leaves_the_second_unchanged(box: Box) -> None:
    box.stage("in", b"x", alias="also").unlink()
    box.start()
    assert box.find() == {}


# --- what is no file ------------------------------------------------------------------------------------


def test_links_pipes_and_devices_are_not_outputs_and_not_followed(box: Box, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"s")
    (box.path / "file").symlink_to(tmp_path / "outside" / "secret")
    (box.path / "directory").symlink_to(tmp_path / "outside")
    (box.path / "loop").symlink_to("loop")
    (box.path / "up").symlink_to(".")
    os.mkfifo(box.path / "pipe")
    if os.geteuid() == 0:
        os.mknod(box.path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert box.find() == {}


def test_an_input_replaced_by_a_link_is_no_output(box: Box, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    file = box.stage("in", b"x")
    box.start()
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    assert box.find() == {}


def test_files_without_permission_are_outputs_all_the_same(box: Box, tmp_path: Path) -> None:
    """As whoever is not root: the command's files are the server's own, whatever it did to their modes."""
    (box.path / "sub").mkdir()
    (box.path / "sub" / "file").write_bytes(b"x")
    (box.path / "sub" / "file").chmod(0)
    (box.path / "sub").chmod(0)
    if os.geteuid():
        assert box.find() == {b"sub/file": b"x"}
        return
    for path in (box.path, box.path / "sub", box.path / "sub" / "file"):
        os.chown(path, NOBODY, NOBODY)
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        path.chmod(path.stat().st_mode | 0o711)

    def find_as_nobody() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        assert [file.path for file in find_new(os.fsencode(box.path), {}, {}, 0, no_beat)] == [b"sub/file"]

    assert os.waitpid(start_process(find_as_nobody), 0)[1] == 0


# --- declared outputs -----------------------------------------------------------------------------------


def declared(box: Box, *paths: bytes) -> dict[bytes, bytes]:
    return {file.path: check(file) for file in find_declared(os.fsencode(box.path), paths, no_beat)}


def test_exactly_the_declared_files_are_outputs(box: Box) -> None:
    for name in ("a", "b", "c"):
        (box.path / name).write_bytes(name.encode())
    assert declared(box, b"c", b"a") == {b"c": b"c", b"a": b"a"}


def test_a_declared_input_is_an_output_also_unchanged(box: Box) -> None:
    box.stage("in", b"x")
    assert declared(box, b"in") == {b"in": b"x"}


@pytest.mark.parametrize("what", ["nothing", "directory", "link", "pipe", "in a linked directory", "below a file"])
def test_a_declared_output_that_is_no_file_of_the_box_is_missing(box: Box, tmp_path: Path, what: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "out").write_bytes(b"s")
    path = b"d/out"
    (box.path / "d").mkdir()
    match what:
        case "directory":
            (box.path / "d" / "out").mkdir()
        case "link":
            (box.path / "d" / "out").symlink_to(tmp_path / "outside" / "out")
        case "pipe":
            os.mkfifo(box.path / "d" / "out")
        case "in a linked directory":
            (box.path / "d").rmdir()
            (box.path / "d").symlink_to(tmp_path / "outside")
        case "below a file":
            (box.path / "d").rmdir()
            (box.path / "d").touch()
    (box.path / "a").touch()
    with pytest.raises(MissingOutput) as caught:
        declared(box, b"a", path)
    assert caught.value.path == path


def test_many_large_files_show_that_we_live(box: Box) -> None:
    beats = []
    with (box.path / "large").open("wb") as large:
        large.truncate(100 << 20)
    made = find_new(os.fsencode(box.path), {}, {}, 0, lambda: beats.append(1))
    assert made[0].size == 100 << 20
    assert len(beats) >= 3
