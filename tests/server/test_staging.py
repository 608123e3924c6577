"""Inputs: checked, placed from the store, asked for when missing, verified when they arrive."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from server_vocabulary import an_input

from rakefarm.digest import no_beat
from rakefarm.server.sandbox import ActionDirectory
from rakefarm.server.staging import MANIFEST_FILES, Staging, StagingFailed, check_manifest
from rakefarm.server.store import SMALL_BYTES, Store
from rakefarm.wire.errors import Malformed, UnsafePath
from rakefarm.wire.messages import Input

MTIME = 1_700_000_000_000_000_000


def a_directory(home: Path) -> ActionDirectory:
    home.mkdir()
    return ActionDirectory(os.fsencode(home))


@pytest.fixture
def directory(tmp_path: Path) -> ActionDirectory:
    return a_directory(tmp_path / "action")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), 64 << 20)


def body(content: bytes, piece: int = 100_000) -> Callable[[Callable[[bytes], object]], None]:
    """What the transport does with a body: pieces into a sink."""

    def receive(sink: Callable[[bytes], object]) -> None:
        for start in range(0, len(content), piece):
            sink(content[start : start + piece])

    return receive


def stage(directory: ActionDirectory, store: Store, *files: tuple[Input, bytes]) -> tuple[Staging, list[int]]:
    """The whole of it, as a client with all the files makes it go."""
    staging = Staging([entry for entry, _ in files], directory, store)
    missing = staging.place_known()
    for index in missing:
        staging.receive(index, len(files[index][1]), body(files[index][1]))
    staging.place_later(no_beat)
    return staging, missing


def file(path: bytes, content: bytes, **changes: object) -> tuple[Input, bytes]:
    return an_input(path, content, **changes), content


def read(directory: ActionDirectory, path: bytes) -> bytes:
    return Path(os.fsdecode(directory.box + b"/" + path)).read_bytes()


SIZES = [0, 1, 100_000, SMALL_BYTES, SMALL_BYTES + 1, 3 * SMALL_BYTES]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives_with_content_mode_and_time(directory: ActionDirectory, store: Store, size: int) -> None:
    content = os.urandom(size)
    staging, missing = stage(directory, store, file(b"a/b c", content, mode=0o755))
    assert missing == [0]
    assert read(directory, b"a/b c") == content
    status = os.stat(directory.box + b"/a/b c")
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o755, MTIME)
    assert staging.staged[b"a/b c"].sha256 == hashlib.sha256(content).digest()


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_sent_once(tmp_path: Path, store: Store, size: int) -> None:
    content = os.urandom(size)
    for number in range(2):
        action = a_directory(tmp_path / f"action-{number}")
        _, missing = stage(action, store, file(b"in", content, mode=0o640))
        assert missing == ([0] if number == 0 else [])
        assert read(action, b"in") == content
        status = os.stat(action.box + b"/in")
        assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, MTIME)


def test_only_what_is_missing_is_asked_for(tmp_path: Path, directory: ActionDirectory, store: Store) -> None:
    stage(a_directory(tmp_path / "before"), store, file(b"x", b"known"))
    _, missing = stage(directory, store, file(b"a", b"new"), file(b"b", b"known"), file(b"c", b"newer"))
    assert missing == [0, 2]
    assert [read(directory, path) for path in (b"a", b"b", b"c")] == [b"new", b"known", b"newer"]


def test_nothing_is_kept_in_a_store_of_no_size(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), 0)
    for number in range(2):
        action = a_directory(tmp_path / f"action-{number}")
        assert stage(action, store, file(b"in", b"x"))[1] == [0]
        assert read(action, b"in") == b"x"


def test_two_names_are_one_file(directory: ActionDirectory, store: Store) -> None:
    staging, _ = stage(directory, store, file(b"in", b"x", alias=b"also/in"))
    assert os.path.samefile(directory.box + b"/in", directory.box + b"/also/in")
    assert staging.aliases == {b"also/in": b"in"}


def test_a_command_that_writes_in_place_does_not_change_the_store(
    tmp_path: Path, directory: ActionDirectory, store: Store
) -> None:
    stage(directory, store, file(b"in", b"original"))
    Path(os.fsdecode(directory.box + b"/in")).write_bytes(b"changed!")
    again = a_directory(tmp_path / "again")
    assert stage(again, store, file(b"in", b"original"))[1] == []
    assert read(again, b"in") == b"original"


def test_a_file_without_mode_is_still_readable(directory: ActionDirectory, store: Store) -> None:
    stage(directory, store, file(b"in", b"x", mode=0))
    assert os.stat(directory.box + b"/in").st_mode & 0o400


# --- what is refused ------------------------------------------------------------------------------------


def test_the_content_must_be_what_the_digest_says(directory: ActionDirectory, store: Store) -> None:
    entry = an_input(b"in", b"right")
    staging = Staging([entry], directory, store)
    assert staging.place_known() == [0]
    with pytest.raises(Malformed, match="digest"):
        staging.receive(0, 5, body(b"wrong"))
    assert not store.has(entry.sha256, 5)
    assert not store.has(hashlib.sha256(b"wrong").digest(), 5)


@pytest.mark.parametrize("size", [0, 4, 6, 1 << 63])
def test_the_size_must_be_the_manifests(directory: ActionDirectory, store: Store, size: int) -> None:
    staging = Staging([an_input(b"in", b"right")], directory, store)
    staging.place_known()
    with pytest.raises(Malformed, match="bytes"):
        staging.receive(0, size, lambda sink: pytest.fail("the body was read"))


BAD_PATHS = [
    b"",
    b"/etc/passwd",
    b"..",
    b"../x",
    b"a/../../x",
    b"a/..",
    b".",
    b"./a",
    b"a//b",
    b"a/",
    b"a\0b",
    b"a\nb",
    b"a" * 256,
]


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("where", ["path", "alias", "produces"])
def test_paths_that_lead_out_are_refused(path: bytes, where: str) -> None:
    manifest, produces = [an_input(b"in")], [b"out"]
    match where:
        case "path":
            manifest.append(an_input(path))
        case "alias":
            if not path:
                return  # means that there is none
            manifest.append(an_input(b"x", alias=path))
        case "produces":
            produces.append(path)
    with pytest.raises(UnsafePath):
        check_manifest(manifest, produces)


@pytest.mark.parametrize(
    "manifest",
    [
        [an_input(b"a"), an_input(b"a")],
        [an_input(b"a"), an_input(b"b", alias=b"a")],
        [an_input(b"a", alias=b"a")],
        [an_input(b"a"), an_input(b"a/b")],
        [an_input(b"a/b/c"), an_input(b"a/b")],
        [an_input(b"x/y", alias=b"x")],
    ],
)
def test_a_name_stands_once_and_is_not_a_directory(manifest: list[Input]) -> None:
    with pytest.raises(UnsafePath):
        check_manifest(manifest, [])


@pytest.mark.parametrize("produces", [[b"a", b"a"], [b"a", b"a/b"]])
def test_a_declared_output_stands_once_and_is_not_a_directory(produces: list[bytes]) -> None:
    with pytest.raises(UnsafePath):
        check_manifest([], produces)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": 0o4755},
        {"mode": 1 << 63},
        {"size": 1 << 50},
        {"mtime_ns": 1 << 63},
        {"sha256": b""},
        {"sha256": bytes(31)},
    ],
)
def test_what_no_file_has_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises((Malformed, UnsafePath)):
        check_manifest([an_input(b"a", **changes)], [])


def test_a_manifest_has_its_limit() -> None:
    entries = [an_input(b"%d" % number) for number in range(MANIFEST_FILES + 1)]
    check_manifest(entries[1:], [])
    with pytest.raises(Malformed, match="50000"):
        check_manifest(entries, [])


def test_inputs_may_be_outputs() -> None:
    check_manifest([an_input(b"a")], [b"a", b"b"])


# --- a disk that can't take it --------------------------------------------------------------------------


def test_a_full_disk_is_told_when_the_client_has_said_all(
    directory: ActionDirectory, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is speaking: its bodies are read to their end before it hears of it."""
    staging = Staging([an_input(b"a", b"x" * 10), an_input(b"b", b"y" * 10)], directory, store)
    missing = staging.place_known()

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        for index, letter in zip(missing, (b"x", b"y"), strict=True):
            staging.receive(index, 10, body(letter * 10))
    with pytest.raises(StagingFailed, match="No space left") as caught:
        staging.place_later(no_beat)
    assert caught.value.reason == "disk"


def test_a_file_evicted_between_question_and_use_is_told(
    tmp_path: Path, directory: ActionDirectory, store: Store
) -> None:
    large = file(b"large", os.urandom(2 * SMALL_BYTES))
    stage(a_directory(tmp_path / "before"), store, large)
    staging = Staging([large[0]], directory, store)
    assert staging.place_known() == []
    for blob in (tmp_path / "store").rglob("*"):
        if blob.is_file():
            blob.unlink()
    with pytest.raises(StagingFailed, match="evicted") as caught:
        staging.place_later(no_beat)
    assert caught.value.reason == "input_lost"


def test_a_directory_that_went_is_told(directory: ActionDirectory, store: Store) -> None:
    staging = Staging([an_input(b"in", b"x")], directory, store)
    staging.place_known()
    directory.remove()
    staging.receive(0, 1, body(b"x"))
    with pytest.raises(StagingFailed) as caught:
        staging.place_later(no_beat)
    assert caught.value.reason == "sandbox"
