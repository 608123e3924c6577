"""The content store: what comes out is what its digest says, or nothing comes out."""

import hashlib
import multiprocessing
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_vocabulary import other_process

from rakefarm.server import store as store_module
from rakefarm.server.store import Store

MIB = 1 << 20
Keep = Callable[[Store, bytes], bytes]


def digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(directory: Path) -> Store:
    return Store(str(directory), 64 * MIB)


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """`keep(store, content)` adds the content, and answers its digest."""

    def add(store: Store, content: bytes) -> bytes:
        source = tmp_path / "source"
        source.write_bytes(content)
        store.add(digest_of(content), os.fsencode(source), len(content))
        return digest_of(content)

    return add


@pytest.fixture
def target(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "target")


def blob_path(directory: Path, digest: bytes) -> Path:
    return directory / digest.hex()[:2] / digest.hex()


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


def total_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 1, 1000, 256 << 10, (256 << 10) + 1, 3 * MIB])
def test_a_copy_has_the_content_and_the_mode(store: Store, keep: Keep, target: bytes, size: int) -> None:
    content = os.urandom(size)
    digest = keep(store, content)
    assert store.has(digest, size)
    assert store.copy_to(digest, size, target, 0o640)
    assert Path(os.fsdecode(target)).read_bytes() == content
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o640


def test_a_copy_is_no_link(store: Store, keep: Keep, target: bytes, directory: Path) -> None:
    """A command that writes its input in place must not change the store."""
    digest = keep(store, b"original")
    assert store.copy_to(digest, 8, target, 0o600)
    Path(os.fsdecode(target)).write_bytes(b"changed!")
    assert blob_path(directory, digest).read_bytes() == b"original"
    assert os.stat(target).st_nlink == 1


def test_what_is_not_there_is_not_copied(store: Store, target: bytes) -> None:
    assert not store.has(digest_of(b"x"), 1)
    assert not store.copy_to(digest_of(b"x"), 1, target, 0o600)
    assert not os.path.exists(target)


def test_a_size_that_is_not_the_blobs_is_a_miss(store: Store, keep: Keep, target: bytes) -> None:
    digest = keep(store, b"four")
    assert not store.has(digest, 5)
    assert not store.copy_to(digest, 5, target, 0o600)
    assert not os.path.exists(target)


def test_blobs_can_not_be_written_by_accident(store: Store, keep: Keep, directory: Path) -> None:
    assert stat.S_IMODE(blob_path(directory, keep(store, b"x")).stat().st_mode) == 0o400


@pytest.mark.parametrize("content", [b"0riginal", b"orig", b"", b"original and more"])
def test_a_damaged_blob_is_dropped_and_not_copied(
    directory: Path, store: Store, keep: Keep, target: bytes, content: bytes
) -> None:
    digest = keep(store, b"original")
    damage(blob_path(directory, digest), content)
    another = Store(str(directory), 64 * MIB)
    assert not another.copy_to(digest, 8, target, 0o600)
    assert not os.path.exists(target)
    keep(another, b"original")
    assert another.copy_to(digest, 8, target, 0o600), "it can be kept again"


def test_a_blob_damaged_after_its_first_use_is_noticed(
    directory: Path, store: Store, keep: Keep, target: bytes
) -> None:
    digest = keep(store, b"original")
    assert store.copy_to(digest, 8, target, 0o600)
    os.unlink(target)
    damage(blob_path(directory, digest), b"0riginal")
    assert not store.copy_to(digest, 8, target, 0o600)
    assert not blob_path(directory, digest).exists()


def test_a_link_in_place_of_a_blob_is_not_followed(
    directory: Path, store: Store, keep: Keep, target: bytes, tmp_path: Path
) -> None:
    digest = keep(store, b"original")
    blob_path(directory, digest).unlink()
    (tmp_path / "other").write_bytes(b"original")
    blob_path(directory, digest).symlink_to(tmp_path / "other")
    assert not store.copy_to(digest, 8, target, 0o600)


def test_a_target_that_exists_is_not_overwritten(store: Store, keep: Keep, target: bytes) -> None:
    digest = keep(store, b"original")
    Path(os.fsdecode(target)).write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        store.copy_to(digest, 8, target, 0o600)
    assert Path(os.fsdecode(target)).read_bytes() == b"mine"


def test_it_survives_a_restart(directory: Path, keep: Keep, target: bytes) -> None:
    digest = keep(Store(str(directory), 64 * MIB), b"x" * 1000)
    assert Store(str(directory), 64 * MIB).copy_to(digest, 1000, target, 0o600)


def test_two_workers_share_it(directory: Path, keep: Keep, target: bytes) -> None:
    first, second = Store(str(directory), 64 * MIB, 2), Store(str(directory), 64 * MIB, 2)
    digest = keep(first, b"x")
    assert second.copy_to(digest, 1, target, 0o600)


def test_it_may_be_deleted_while_in_use(directory: Path, store: Store, keep: Keep, target: bytes) -> None:
    digest = keep(store, b"x")
    assert store.copy_to(digest, 1, target, 0o600)
    os.unlink(target)
    shutil.rmtree(directory)
    assert not store.has(digest, 1)
    assert not store.copy_to(digest, 1, target, 0o600)
    store.evict()
    keep(store, b"x")
    assert store.copy_to(digest, 1, target, 0o600)


def test_a_file_that_changed_meanwhile_is_not_kept_under_its_old_name(
    store: Store, target: bytes, tmp_path: Path
) -> None:
    """`add` believes its caller's digest; whoever copies does not."""
    source = tmp_path / "source"
    source.write_bytes(b"changed!")
    store.add(digest_of(b"original"), os.fsencode(source), 8)
    assert not store.copy_to(digest_of(b"original"), 8, target, 0o600)


@pytest.mark.parametrize("content", [b"short", None])
def test_a_file_that_shrank_or_went_is_not_kept_and_leaves_nothing(
    directory: Path, store: Store, tmp_path: Path, content: bytes | None
) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.write_bytes(content)
    store.add(digest_of(b"longer than that"), os.fsencode(source), 16)
    assert not store.has(digest_of(b"longer than that"), 16)
    assert list((directory / "new").iterdir()) == []


def test_a_size_of_nothing_keeps_nothing(directory: Path, keep: Keep, target: bytes) -> None:
    store = Store(str(directory), 0)
    digest = keep(store, b"x")
    empty = keep(store, b"")
    assert not store.has(digest, 1)
    assert not store.copy_to(digest, 1, target, 0o600)
    assert not store.copy_to(empty, 0, target, 0o600)
    assert not directory.exists()


def test_a_file_that_would_fill_it_is_not_kept(directory: Path, keep: Keep) -> None:
    store = Store(str(directory), MIB)
    assert not store.has(keep(store, bytes(MIB // 2)), MIB // 2)


def test_a_blob_is_verified_by_each_worker_once_and_again_when_it_has_changed(
    directory: Path, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = keep(Store(str(directory), MIB), b"content")
    hashed: list[int] = []
    hash_it = store_module.hash_descriptor
    monkeypatch.setattr(
        store_module, "hash_descriptor", lambda descriptor, beat: hashed.append(1) or hash_it(descriptor, beat)
    )
    stores = [Store(str(directory), MIB) for _ in range(3)]
    store = stores[0]
    for _ in range(5):
        assert [each.read(digest, 7) for each in stores] == [b"content"] * 3
    assert len(hashed) == 3
    path = blob_path(directory, digest)
    path.chmod(0o600)
    path.write_bytes(b"CONTENT")
    assert store.read(digest, 7) is None
    assert not path.exists()


def set_used(directory: Path, digest: bytes, when: float) -> None:
    os.utime(blob_path(directory, digest), (when, when))


def test_what_was_used_longest_ago_goes_first(directory: Path, keep: Keep, target: bytes) -> None:
    store = Store(str(directory), 16 * MIB)
    digests = [keep(store, bytes([number]) * (100 << 10)) for number in range(6)]
    for number, digest in enumerate(digests):
        set_used(directory, digest, 1_000_000 + number)
    # Its first use by another worker makes the oldest the newest.
    assert Store(str(directory), 16 * MIB).copy_to(digests[0], 100 << 10, target, 0o600)
    del store
    smaller = Store(str(directory), MIB // 2)
    assert [smaller.has(digest, 100 << 10) for digest in digests] == [True, False, False, False, True, True]


@pytest.mark.parametrize("workers", [1, 4])
def test_it_never_holds_more_than_its_size(directory: Path, keep: Keep, workers: int) -> None:
    stores = [Store(str(directory), MIB, workers) for _ in range(workers)]
    for number in range(120):
        keep(stores[number % workers], number.to_bytes(4, "big") * (10 << 10))
        assert total_bytes(directory) <= MIB
    assert total_bytes(directory) > MIB // 3, "and is not needlessly empty"


def test_a_store_made_smaller_shrinks_at_the_next_start(directory: Path, keep: Keep) -> None:
    store = Store(str(directory), 16 * MIB)
    for number in range(20):
        keep(store, bytes([number]) * (100 << 10))
    del store
    Store(str(directory), MIB)
    assert total_bytes(directory) <= MIB


def test_a_small_cap_does_not_empty_what_another_server_uses(directory: Path, keep: Keep) -> None:
    def fill_and_stay() -> None:
        store = Store(str(directory), 16 * MIB)
        for number in range(20):
            keep(store, bytes([number]) * (100 << 10))
        stores.append(store)

    stores: list[Store] = []
    with other_process(fill_and_stay):
        small = Store(str(directory), MIB)
        for number in range(20, 40):
            keep(small, bytes([number]) * (100 << 10))
        assert total_bytes(directory) >= 40 * (100 << 10)
    small.evict()
    assert total_bytes(directory) <= MIB, "the other was killed, and its cap counts no more"
    assert len(list((directory / "caps").iterdir())) == 1


def test_rubbish_among_the_caps_counts_for_nothing(directory: Path, store: Store, keep: Keep) -> None:
    digest = keep(store, b"x")
    for name in ("rubbish", "9" * 200, "-", "99999999999-dead"):
        (directory / "caps" / name).write_bytes(b"")
    (directory / "caps" / "7-directory").mkdir()
    store.evict()
    assert store.has(digest, 1) and len(list((directory / "caps").iterdir())) == 2


def test_what_a_crash_left_half_written_is_not_a_blob(directory: Path, store: Store) -> None:
    half, old = directory / "new" / "tmpabc", directory / "new" / "tmpold"
    half.write_bytes(b"half")
    old.write_bytes(b"half")
    os.utime(old, (1_000_000, 1_000_000))
    store.evict()
    assert not store.has(digest_of(b"half"), 4)
    assert half.exists() and not old.exists(), "somebody may be writing the one"


def add_many(directory: str, first: int) -> None:
    store = Store(directory, 2 * MIB, 3)
    source = f"{directory}-source-{first}"
    for number in range(first, first + 60):
        content = (number % 40).to_bytes(2, "big") * (20 << 10)
        Path(source).write_bytes(content)
        store.add(digest_of(content), os.fsencode(source), len(content))
        store.copy_to(digest_of(content), len(content), os.fsencode(source + "-copy"), 0o600)
        copy = Path(source + "-copy")
        if copy.exists():
            assert copy.read_bytes() == content
            copy.unlink()


def test_many_processes_at_once_see_whole_blobs_only(directory: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_many, args=(str(directory), first)) for first in (0, 20, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert total_bytes(directory) <= 2 * MIB


@given(content=st.binary(max_size=5000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_any_content_comes_back(store: Store, keep: Keep, target: bytes, content: bytes) -> None:
    digest = keep(store, content)
    assert store.copy_to(digest, len(content), target, 0o600)
    assert Path(os.fsdecode(target)).read_bytes() == content
    os.unlink(target)
