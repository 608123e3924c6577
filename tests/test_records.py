"""Records on disk: whole or not there, never more than the cap, whatever is killed or damaged meanwhile."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server_vocabulary import busy_process, wait_until

from rakefarm.records import RecordStore, UnsafeDirectory

CAP = 1 << 20


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(str(tmp_path / "store"), CAP)


def files_of(store: RecordStore) -> list[Path]:
    return [path for path in Path(store.directory).glob("??/*") if path.is_file()]


def test_what_is_kept_comes_back(store: RecordStore) -> None:
    assert store.get(key(1)) is None
    assert store.put(key(1), b"one")
    assert store.put(key(2), b"")
    assert (store.get(key(1)), store.get(key(2))) == (b"one", b"")
    assert store.put(key(1), b"another")
    assert RecordStore(store.directory, CAP).get(key(1)) == b"another"
    assert store.usage().records == 2
    assert store.clear().records == 2
    assert store.get(key(1)) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "renamed", "longer"])
def test_a_damaged_record_is_none_and_is_removed(store: RecordStore, damage: str) -> None:
    store.put(key(1), b"content" * 100)
    (path,) = files_of(store)
    data = path.read_bytes()
    path.chmod(0o600)
    wanted = key(1)
    match damage:
        case "cut":
            path.write_bytes(data[:-1])
        case "flipped":
            path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
        case "empty":
            path.write_bytes(b"")
        case "longer":
            path.write_bytes(data + b"x")
        case _:
            store.put(key(2), b"")
            wanted = key(2)
            path.replace(Path(store.directory) / key(2).hex()[:2] / key(2).hex())
    assert store.get(wanted) is None
    assert not (Path(store.directory) / wanted.hex()[:2] / wanted.hex()).exists()


def test_the_cap_holds_and_what_was_used_last_stays(store: RecordStore) -> None:
    for number in range(400):
        store.put(key(number), bytes(8000))
        path = Path(store.directory) / key(number).hex()[:2] / key(number).hex()
        if path.exists():
            os.utime(path, (number, number))
        assert number % 20 or store.usage().size_bytes <= CAP
    store.evict()
    assert store.usage().size_bytes <= CAP
    assert store.get(key(399)) is not None
    assert store.get(key(0)) is None


def test_a_use_counts(store: RecordStore) -> None:
    for number in range(90):
        store.put(key(number), bytes(8000))
        os.utime(Path(store.directory) / key(number).hex()[:2] / key(number).hex(), (number, number))
    assert store.get(key(0)) is not None
    for number in range(100, 140):
        store.put(key(number), bytes(8000))
    assert store.get(key(0)) is not None
    assert store.get(key(1)) is None


def test_too_large_a_record_is_not_kept(store: RecordStore) -> None:
    assert not store.put(key(1), bytes(CAP // 4))
    assert store.usage().records == 0


def test_a_directory_that_is_gone_is_made_again(store: RecordStore) -> None:
    store.put(key(1), b"one")
    for path in sorted(Path(store.directory).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    Path(store.directory).rmdir()
    assert store.get(key(1)) is None
    assert store.put(key(1), b"one")
    assert store.get(key(1)) == b"one"


def test_others_must_not_write_there(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UnsafeDirectory, match="others can write"):
        RecordStore(str(tmp_path / "open"), CAP)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsafeDirectory, match="file"):
        RecordStore(str(tmp_path / "file"), CAP)


def test_many_writers_and_readers_see_whole_records(store: RecordStore) -> None:
    def work(seed: int) -> bool:
        own = RecordStore(store.directory, CAP)
        right = True
        for number in range(60):
            own.put(key(number % 7), bytes([number % 7]) * 9000)
            found = own.get(key((number + seed) % 7))
            right = right and (found is None or found == bytes([(number + seed) % 7]) * 9000)
        return right

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_killed_writer_leaves_nothing_that_counts(store: RecordStore) -> None:
    def write() -> None:
        own = RecordStore(store.directory, CAP)
        number = 0
        while True:
            own.put(key(number % 50), bytes([number % 50]) * 9000)
            number += 1

    for _ in range(5):
        with busy_process(write):  # it ends with SIGKILL
            wait_until(lambda: len(files_of(store)) > 10)
        for number in range(50):
            assert store.get(key(number)) in (None, bytes([number]) * 9000)
    long_ago = time.time() - 1e6
    for path in Path(store.directory, "new").iterdir():
        os.utime(path, (long_ago, long_ago))
    store.evict()
    assert not list(Path(store.directory, "new").iterdir())
