"""Names that say nothing: in a ledger with `ledger_hash`, each command, path and output is replaced by a keyed hash.

Equal names have equal hashes, so that actions can still be followed from run to run. A hash without a key could be
guessed (who knows a few likely commands hashes them and compares), so the key is random, is kept beside the ledger for
its owner alone, and must not leave with a ledger that is given to others.
"""

import contextlib
import os
import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

KEY_BYTES = 32
HASH_BYTES = 16
OWN_WORDS = re.compile(r"|exit status \d+|killed by signal \d+( \(\w+\))?|its time limit was up|interrupted")
"""Details of an ending that say nothing of the user's; any other may hold the name of a file."""


def pseudonyms(key_path: str) -> Callable[[dict[str, Any]], None]:
    """What replaces the names in a record, in place, with the key in the file `key_path`, which is made if missing.

    Raises OSError when there is no key and none can be made: better no ledger than one that tells all.
    """
    hashed = _hasher(_read_key(key_path) or _make_key(key_path))

    def veil(record: dict[str, Any]) -> None:
        for name in ("rakefile", "command", "set_name"):
            if name in record:
                record[name] = hashed(record[name])
        if "outputs" in record:
            record["outputs"] = [hashed(path) for path in record["outputs"]]
        if not OWN_WORDS.fullmatch(record.get("detail", "")):
            record["detail"] = hashed(record["detail"])
        # Why a host declined or lost an action: a word for programs stays, the line for people may name anything.
        # Why a host was left out is about the network alone.
        if record.get("reason") and record["event"] != "host_left_out":
            word, colon, text = record["reason"].partition(": ")
            if not (word.isascii() and word.isidentifier()):
                word, colon, text = "", "", record["reason"]
            record["reason"] = f"{word}{colon}{hashed(text)}" if text else word

    return veil


def pseudonym(text: str, key_path: str) -> str | None:
    """What stands for this name where the key in `key_path` was used; None without one that can be read."""
    try:
        key = _read_key(key_path)
    except OSError:
        return None
    return None if key is None else _hasher(key)(text)


def _hasher(key: bytes) -> Callable[[str], str]:
    def hashed(text: str) -> str:
        return blake2b(text.encode("utf-8", "surrogateescape"), key=key, digest_size=HASH_BYTES).hexdigest()

    return hashed


def _read_key(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        key = os.read(descriptor, KEY_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(key) != KEY_BYTES:
        raise OSError(0, f"not a key of {KEY_BYTES} bytes", path)
    return key


def _make_key(path: str) -> bytes:
    """A key appears under its name only when it is whole, and of two builds that make one the first wins."""
    draft = f"{path}.{os.urandom(8).hex()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(descriptor, os.urandom(KEY_BYTES))
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    key = _read_key(path)
    if key is None:
        raise OSError(0, "it was removed at once", path)
    return key
