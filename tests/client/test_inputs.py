"""Required files: what they are called in the sandbox, what is refused, and that a digest is never an old one."""

import hashlib
import os
from pathlib import Path

import pytest

from rakefarm.client import inputs
from rakefarm.client.inputs import Hasher, InputError, arrange, expand, measure, staged_path


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str | bytes) -> None:
    for name in names:
        directory = os.path.dirname(os.fsencode(name))
        if directory:
            os.makedirs(directory, exist_ok=True)
        with open(os.fsencode(name), "wb") as file:
            file.write(b"content of " + os.fsencode(name))


def places(*requires: str) -> dict[bytes, bytes]:
    """Each staged path with its alias."""
    return {entry.path: entry.alias for entry in Hasher().manifest(requires).entries}


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (b"a.c", b"a.c"),
        (b"./a.c", b"a.c"),
        (b"a/b.c", b"a/b.c"),
        (b"a//./b.c", b"a/b.c"),
        (b"/usr/include/x.h", b"x.h"),
        (b"../x.h", b"x.h"),
        (b"../../lib/x.h", b"x.h"),
        (b"a/../x.h", b"x.h"),
        (b"..x", b"..x"),
        (b"a/...", b"a/..."),
        (b"caf\xe9.c", b"caf\xe9.c"),
    ],
)
def test_a_name_has_one_place(name: bytes, place: bytes) -> None:
    assert staged_path(name) == place


@pytest.mark.parametrize("name", [b"..", b"a/..", b"/.."])
def test_a_directory_outside_is_refused(name: bytes) -> None:
    with pytest.raises(InputError, match="outside"):
        staged_path(name)


def test_a_nested_file_is_also_at_the_top() -> None:
    make("a/b.c")
    assert places("a/b.c") == {b"a/b.c": b"b.c"}


def test_a_plain_file_has_no_second_name() -> None:
    make("b.c")
    assert places("b.c", "./b.c"[2:]) == {b"b.c": b""}


def test_the_second_name_gives_way_to_a_file_of_that_name() -> None:
    make("a/b.c", "b.c")
    assert places("a/b.c", "b.c") == {b"a/b.c": b"", b"b.c": b""}


def test_the_second_name_gives_way_to_a_directory_of_that_name() -> None:
    make("x/lib", "lib/y")
    assert places("x/lib", "lib/y") == {b"x/lib": b"", b"lib/y": b"y"}


def test_two_that_want_the_same_second_name_both_go_without() -> None:
    make("a/x.h", "b/x.h", "c/y.h")
    assert places("a/x.h", "b/x.h", "c/y.h") == {b"a/x.h": b"", b"b/x.h": b"", b"c/y.h": b"y.h"}


def test_a_name_given_twice_is_one_file() -> None:
    make("a/b.c")
    assert places("a/b.c", "a/b.c") == {b"a/b.c": b"b.c"}


def test_an_absolute_name_is_staged_under_its_base_name(project: Path) -> None:
    make("deep/er/x.h")
    assert places(str(project / "deep/er/x.h")) == {b"x.h": b""}


def test_a_name_that_climbs_out_is_staged_under_its_base_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("x.h", "work/a.c")
    monkeypatch.chdir(project / "work")
    assert places("../x.h", "a.c") == {b"x.h": b"", b"a.c": b""}


@pytest.mark.parametrize("pair", [("./a.c", "a.c"), ("x/a.c", "x//a.c"), ("x/../a.c", "a.c")])
def test_two_names_for_one_file_in_one_place_are_one(pair: tuple[str, str]) -> None:
    make("a.c", "x/a.c")
    assert len(places(*pair)) == 1


def test_two_files_for_one_place_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("x.h", "work/x.h")
    monkeypatch.chdir(project / "work")
    with pytest.raises(InputError, match=r"two required files would both be staged as x\.h"):
        places("../x.h", "x.h")


def test_a_file_and_a_directory_of_one_name_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("lib", "work/lib/a.c")
    monkeypatch.chdir(project / "work")
    with pytest.raises(InputError, match="a file and a directory"):
        places("../lib", "lib/a.c")


def test_undecodable_names_survive() -> None:
    make(b"src/caf\xe9.c")
    assert places(os.fsdecode(b"src/caf\xe9.c")) == {b"src/caf\xe9.c": b"caf\xe9.c"}


@pytest.mark.parametrize("name", ["a\nb.c", "a\tb.c", "a\x1b[31m.c", "a\x7f.c"])
def test_control_bytes_are_refused(name: str) -> None:
    make(name)
    with pytest.raises(InputError, match="control byte") as refusal:
        places(name)
    assert all(char.isprintable() for char in str(refusal.value))


def test_names_too_long_for_the_wire_are_refused() -> None:
    nested = "/".join(["d" * 200] * 6) + "/a.c"
    make(nested)
    with pytest.raises(InputError, match="can't be sent"):
        places(nested)


# --- what a required name may mean ----------------------------------------------------------------------


def test_a_directory_is_its_files() -> None:
    make("inc/a.h", "inc/sys/b.h", "c.c")
    os.mkdir("inc/empty")
    assert places("inc", "c.c") == {b"inc/a.h": b"a.h", b"inc/sys/b.h": b"b.h", b"c.c": b""}


def test_the_working_directory_itself_is_its_files() -> None:
    make("a.c", "inc/a.h")
    assert places(".") == {b"a.c": b"", b"inc/a.h": b"a.h"}


def test_a_directory_outside_goes_under_its_base_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("shared/inc/a.h", "work/a.c")
    monkeypatch.chdir(project / "work")
    assert places("../shared/inc") == {b"inc/a.h": b"a.h"}


def test_a_pattern_is_what_it_matches() -> None:
    make("inc/a.h", "inc/sys/b.h", "inc/c.txt")
    assert places("inc/**/*.h") == {b"inc/a.h": b"a.h", b"inc/sys/b.h": b"b.h"}
    assert list(places("inc/[bc].*")) == [b"inc/c.txt"]


def test_a_name_that_looks_like_a_pattern_and_exists_is_a_name() -> None:
    make("a[1].c", "a1.c")
    assert places("a[1].c") == {b"a[1].c": b""}


def test_a_link_to_a_file_is_that_file(project: Path) -> None:
    make("real.c")
    os.symlink("real.c", "link.c")
    (entry,) = Hasher().manifest(["link.c"]).entries
    assert (entry.path, entry.sha256) == (b"link.c", hashlib.sha256(b"content of real.c").digest())


@pytest.mark.parametrize("name", ["none.c", "inc/none.h", "file/below.h", "*.none", "inc/**/*.none"])
def test_a_missing_file_is_named(name: str) -> None:
    make("file", "inc/a.h")
    assert measure([name]).missing == name
    with pytest.raises(InputError, match="missing required file") as refusal:
        expand(["file", name])
    assert name in str(refusal.value)


def test_a_dangling_link_is_missing() -> None:
    os.symlink("nowhere", "dangling.c")
    assert measure(["dangling.c"]).missing == "dangling.c"
    with pytest.raises(InputError, match=r"missing required file dangling\.c"):
        expand(["dangling.c"])


def test_the_first_missing_one_is_told() -> None:
    make("a.c")
    assert measure(["a.c", "b.c", "c.c"]).missing == "b.c"
    assert measure(["a.c"]).missing is None
    assert measure([]).missing is None


def test_a_fifo_is_refused_and_not_opened() -> None:
    os.mkfifo("pipe")
    with pytest.raises(InputError, match="neither a file nor a directory"):
        expand(["pipe"])


def test_a_fifo_in_a_required_directory_is_refused_and_not_opened() -> None:
    make("inc/a.h")
    os.mkfifo("inc/pipe")
    with pytest.raises(InputError, match=r"inc/pipe"):
        Hasher().manifest(["inc"])


def test_nothing_is_an_empty_manifest() -> None:
    manifest = Hasher().manifest([])
    assert manifest.entries == ()
    assert manifest.total_bytes == 0


# --- what a manifest says -------------------------------------------------------------------------------


def test_an_entry_has_size_digest_mode_and_time() -> None:
    make("tool.sh")
    os.chmod("tool.sh", 0o4755)
    os.utime("tool.sh", ns=(0, 1_234_567_890_123_456_789))
    manifest = Hasher().manifest(["tool.sh"])
    (entry,) = manifest.entries
    assert entry.size == manifest.total_bytes == len(b"content of tool.sh")
    assert entry.sha256 == hashlib.sha256(b"content of tool.sh").digest()
    assert entry.mode == 0o755  # no set-uid
    assert entry.mtime_ns == 1_234_567_890_123_456_789
    assert manifest.sources == (b"tool.sh",)


def test_a_time_before_1970_can_be_sent() -> None:
    make("old.c")
    os.utime("old.c", (-5, -5))
    assert Hasher().manifest(["old.c"]).entries[0].mtime_ns == 0


class CountingDigest:
    """Stands in for `hash_descriptor` and counts how often a file is really read."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, descriptor: int) -> bytes:
        self.calls += 1
        return hashlib.sha256(os.pread(descriptor, 1 << 20, 0)).digest()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> CountingDigest:
    digest = CountingDigest()
    monkeypatch.setattr(inputs, "hash_descriptor", digest)
    return digest


def test_an_unchanged_file_is_read_once(counting: CountingDigest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "RACY_NS", -1)  # the file is old enough
    make("a.c")
    hasher = Hasher()
    assert hasher.manifest(["a.c"]) == hasher.manifest(["a.c"])
    assert counting.calls == 1


def test_a_fresh_file_is_read_again(counting: CountingDigest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "RACY_NS", 10**18)  # however slow this machine is, the file is fresh
    make("a.c")
    hasher = Hasher()
    hasher.manifest(["a.c"])
    hasher.manifest(["a.c"])
    assert counting.calls == 2


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_change_is_noticed(keep_time: bool) -> None:
    make("a.c")
    before = os.stat("a.c")
    hasher = Hasher()
    for content in (b"x" * 14, b"y" * 14, b"z" * 14):  # the same size each time
        with open("a.c", "wb") as file:
            file.write(content)
        if keep_time:
            os.utime("a.c", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert hasher.manifest(["a.c"]).entries[0].sha256 == hashlib.sha256(content).digest()


def test_a_replacement_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "RACY_NS", -1)
    make("a.c")
    status = os.stat("a.c")
    hasher = Hasher()
    hasher.manifest(["a.c"])
    with open("new", "wb") as file:
        file.write(b"CONTENT OF a.c")
    os.utime("new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace("new", "a.c")
    assert hasher.manifest(["a.c"]).entries[0].sha256 == hashlib.sha256(b"CONTENT OF a.c").digest()


def test_an_unreadable_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    make("secret.c")

    def refuse(path: bytes, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(inputs.os, "open", refuse)
        with pytest.raises(InputError, match=r"can't read required file secret\.c: Permission denied"):
            Hasher().manifest(["secret.c"])


def test_arrange_keeps_the_order() -> None:
    files = [(b"z.c", b"z.c"), (b"a/y.c", b"a/y.c"), (b"b.c", b"b.c")]
    assert [required.source for required in arrange(files)] == [b"z.c", b"a/y.c", b"b.c"]
