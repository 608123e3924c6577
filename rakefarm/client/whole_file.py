"""A file of ours that appears under its name only when it is whole: unnamed until then, it vanishes with us."""

import contextlib
import errno
import os
import stat

from rakefarm.client.board import safe_text
from rakefarm.client.install import current_umask, link_unnamed
from rakefarm.client.plain import OutputFailedError, ViewError

GATHERED_BYTES = 1 << 16


class WholeFile:
    """What is written is gathered, and named by `finish`; `close` gives up what has no name yet."""

    def __init__(self, path: str, option: str) -> None:
        """Raises ViewError, one clear line that names the `option`, when there can be no such file."""
        self._name = safe_text(path)
        self._gathered = bytearray()
        self._beside: bytes | None = None
        try:
            self._path = os.path.realpath(os.fsencode(path))  # a link stays, and what it leads to is replaced
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(self._path).st_mode):
                    raise ViewError(f"cannot write {self._name!r} for {option}: it is no file")
            self._descriptor: int | None = self._open(os.path.dirname(self._path))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise ViewError(f"cannot write {self._name!r} for {option}: {reason}") from error

    def _open(self, directory: bytes) -> int:
        try:
            return os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            import tempfile

            descriptor, self._beside = tempfile.mkstemp(prefix=b".rakefarm-", dir=directory)
            return descriptor

    def write(self, data: bytes) -> None:
        """Raises OutputFailedError the first time that it fails; from then on nothing is written, or named."""
        self._gathered += data
        if len(self._gathered) >= GATHERED_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is gathered, and give the file its name. Again, or after a failure, does nothing. Raises
        OutputFailedError."""
        self._flush()
        if self._descriptor is None:
            return
        try:
            os.fchmod(self._descriptor, 0o666 & ~current_umask())
            if self._beside is None:
                beside = os.path.join(os.path.dirname(self._path), b".rakefarm-%d" % os.getpid())
                link_unnamed(self._descriptor, self._path, beside)
            else:
                os.replace(self._beside, self._path)
                self._beside = None
        except OSError as error:
            raise OutputFailedError(f"cannot write {self._name}: {error.strerror}") from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it. Again does no harm."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        beside, self._beside = self._beside, None
        if beside is not None:
            with contextlib.suppress(OSError):
                os.unlink(beside)

    def _flush(self) -> None:
        view, self._gathered = memoryview(self._gathered), bytearray()
        if self._descriptor is None:
            return
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self.close()
            raise OutputFailedError(f"cannot write {self._name}: {error.strerror}") from error
