"""The file of keys: a line each, a name and a token of 32 random bytes in hexadecimal digits; `#` begins a comment.

    zoe@lab4 6e1f…64 digits…

Who holds a token may use the farm under its name. A server admits every name of its file, a client uses one of its own.
The file must be a regular one of ours that nobody else can read: anything else is refused, with what to do about it.
A token is never part of a message, a representation or an error.
"""

import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rakefarm.config import ConfigError

TOKEN_BYTES = 32
LONGEST_FILE_BYTES = 1 << 20
NONE = "none"
"""What a setting says that wants no key file, also where there is one at the usual place."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN = re.compile(r"[0-9a-f]{64}")


class Key:
    """A named token. It shows its name and its fingerprint, nothing else."""

    __slots__ = ("name", "token")

    def __init__(self, name: str, token: bytes) -> None:
        self.name = name
        self.token = token

    def __repr__(self) -> str:
        return f"Key({self.name!r}, fingerprint {self.fingerprint})"

    @property
    def fingerprint(self) -> str:
        """What two people compare to see that they mean the same token, which can't be found from it."""
        return hashlib.sha256(b"rakefarm fingerprint\0" + self.token).hexdigest()[:16]


Keyring = Mapping[str, Key]
"""Keys by name, in the order of their file."""


def default_path(environ: Mapping[str, str]) -> str:
    """Where the key file is when nothing says otherwise."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
    return os.path.join(home, "rakefarm", "keys")


def find_path(setting: str, environ: Mapping[str, str]) -> str:
    """The key file that a setting names, or the usual one if it exists; empty for none."""
    if setting:
        return "" if setting == NONE else setting
    usual = default_path(environ)
    return usual if os.path.lexists(usual) else ""


def check_name(name: str) -> str:
    """The name itself. Raises ConfigError when no key can have it."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is no name for a key: use up to 64 letters, digits and . _ @ -, beginning with one of the"
            " first two"
        )
    return name


def read_keys(path: str) -> Keyring:
    """The keys in a file. Raises ConfigError, with one line that says what to do."""
    return _parse(_read_private(path), path)


def choose(keyring: Keyring, name: str, path: str) -> Key:
    """The key to use: the one of that name, or the first. Raises ConfigError."""
    if name:
        if name not in keyring:
            raise ConfigError(f"{path}: there is no key {name[:80]!r}; there are {', '.join(keyring) or 'none'}")
        return keyring[name]
    for key in keyring.values():
        return key
    raise ConfigError(f"{path}: there is no key in it; make one with: rakefarm key new")


def format_key(key: Key) -> str:
    """The line of a key in its file. This is the secret."""
    return f"{key.name} {key.token.hex()}\n"


def add_key(path: str, name: str) -> Key:
    """Make a key and add it to the file, which is made if there is none; whoever reads sees the old or the new one.

    Raises ConfigError; a name that is there is never replaced.
    """
    check_name(name)
    directory = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with _locked(directory):
            text = _read_private(path) if os.path.lexists(path) else ""
            if name in _parse(text, path):
                raise ConfigError(f"{path}: there is a key {name!r} already; choose another name, or remove its line")
            key = Key(name, os.urandom(TOKEN_BYTES))
            if text and not text.endswith("\n"):
                text += "\n"
            write_private(path, (text + format_key(key)).encode())
            return key
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from error


def write_private(path: str, data: bytes) -> None:
    """Put a file of 0600 with this content at `path`, whole or not at all. Raises OSError."""
    beside = f"{path}.{os.urandom(6).hex()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def open_private(path: str, what: str = "a key file") -> int:
    """A descriptor to read a file that must be ours alone. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{path}: {what} must not be a link; name the file that it leads to") from error
        make = "; make one with: rakefarm key new" if error.errno == errno.ENOENT else ""
        raise ConfigError(f"{path}: {error.strerror}{make}") from error
    problem = _problem(os.fstat(descriptor), path, what)
    if problem:
        os.close(descriptor)
        raise ConfigError(f"{path}: {problem}")
    return descriptor


def _problem(status: os.stat_result, path: str, what: str) -> str:
    """Why the file can't be trusted, and what to do; empty when it can."""
    if not stat.S_ISREG(status.st_mode):
        return f"{what} must be a regular file"
    if status.st_uid != os.geteuid():
        return f"{what} must be ours: it belongs to user {status.st_uid}, we are {os.geteuid()}; use chown, or our own"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"others can read or write it; say: chmod 600 {path}"
    if status.st_nlink != 1:
        return f"{what} must have one name, this one has {status.st_nlink}; remove the other links"
    if status.st_size > LONGEST_FILE_BYTES:
        return f"{what} has at most {LONGEST_FILE_BYTES} bytes"
    return ""


def _read_private(path: str) -> str:
    with open(open_private(path), "rb") as file:
        data = file.read(LONGEST_FILE_BYTES + 1)
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a key file: it holds bytes that are no ASCII") from None


def _parse(text: str, path: str) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        # What stands there may be most of a token, so no message repeats it.
        if len(words) != 2 or not _NAME.fullmatch(words[0]) or not _TOKEN.fullmatch(words[1]):
            raise ConfigError(f"{path}:{number}: not a name and a token of 64 hexadecimal digits")
        if words[0] in keys:
            raise ConfigError(f"{path}:{number}: a second key {words[0]!r}; give each a name of its own")
        keys[words[0]] = Key(words[0], bytes.fromhex(words[1]))
    return keys


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """One writer at a time: two that add a key at once would lose one of them."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
