"""`--json[=FILE]`: every event as one line of JSON, ASCII only, in the order they happened.

A line is `Event.as_record()`. Bytes that are not UTF-8 appear as lone surrogates (\\udc80 to \\udcff), so
that `json.loads(line)[key].encode("utf-8", "surrogateescape")` gives them back. Each line is written whole
and at once: what has happened can be read while the build runs, and a crash loses none of it.
"""

import json
import math
import os

from rakefarm.client.board import safe_text
from rakefarm.client.plain import Channel, OutputFailedError, ViewError
from rakefarm.events import Event

_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def json_line(event: Event) -> bytes:
    """The event's line with its end. A number that JSON cannot hold (infinity, not a number) becomes null."""
    return record_line(event.as_record())


def record_line(record: dict[str, object]) -> bytes:
    """As `json_line`, for a record."""
    try:
        text = _encode(record)
    except ValueError:
        text = _encode(_finite(record))
    return text.encode("ascii") + b"\n"


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class JsonLines:
    """Writes events to a channel; raises `ViewError` or `OutputClosedError` once when that fails."""

    def __init__(self, channel: Channel, *, owned: bool = False) -> None:
        """`owned`: the channel's descriptor is closed by `close`."""
        self._channel = channel
        self._owned = owned

    @classmethod
    def open(cls, path: str) -> "JsonLines":
        """Write to this file, emptied first. Raises `ViewError`, one clear line, when that is impossible."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise ViewError(f"cannot open {safe_text(path)!r} for --json: {reason}") from error
        return cls(Channel(safe_text(path), descriptor), owned=True)

    def __call__(self, event: Event) -> None:
        """Write one event."""
        self._channel.write(json_line(event))

    def close(self) -> None:
        """Close the file, if it is ours. Again does no harm. Raises `ViewError` for a late error."""
        if not self._owned:
            return
        self._owned = False
        assert self._channel.descriptor is not None
        try:
            os.close(self._channel.descriptor)
        except OSError as error:
            raise OutputFailedError(f"cannot write {self._channel.name}: {error.strerror}") from error
