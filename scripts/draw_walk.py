"""Record one real conversation and write it as bytes with their meaning: docs/report/walk.md.

A server is started on loopback, a build of one compile is run through a proxy that keeps what passes, and each message
is taken apart by the codec itself.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

from msgspec import Struct

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from rakefarm.wire import codec, messages  # noqa: E402  the path comes first

TARGET = os.path.join(ROOT, "docs", "report", "walk.md")
LINE_BYTES = 16
MOST_BYTES = 112
"""Of one message; what is longer is cut."""
HEAD = """\
# One conversation, byte by byte

Written by `scripts/draw_walk.py` from a build of one compile on loopback, without a key. Each message: an 8-byte type,
then its payloads, each after its 8-byte size. What the messages mean is in [protocol.md](../protocol.md).
"""


class Piece(Struct):
    """Bytes that went one way, one after the other."""

    by_client: bool
    data: bytes


def main() -> int:
    """Record and write."""
    pieces = record()
    with open(TARGET, "w", encoding="utf-8") as file:
        file.write(HEAD)
        for piece in join(pieces):
            for text in show(piece):
                file.write(text)
    return 0


def record() -> list[Piece]:
    """The conversation that had the most to say: the one that ran the action."""
    with tempfile.TemporaryDirectory(prefix="rakefarm-walk-") as directory:
        with open(os.path.join(directory, "answer.c"), "w", encoding="ascii") as file:
            file.write("int answer(void) { return 42; }\n")
        with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
            file.write("compile:\n\tremote-cc -c answer.c\n\t\trequires answer.c\n\t\tproduces answer.o\n")
        environment = {
            **os.environ,
            "USER": "student",
            "PYTHONPATH": ROOT,
            "XDG_CACHE_HOME": directory,
            "XDG_STATE_HOME": directory,
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "rakefarm.server", "--until-eof", "--port", "0", "--slots", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        assert server.stdin and server.stdout
        host, _, port = server.stdout.readline().split()[2].rpartition(":")
        conversations: list[list[Piece]] = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=_relay, args=(listener, (host, int(port)), conversations), daemon=True).start()
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            arguments = [sys.executable, "-m", "rakefarm.client", "--progress", "none", "--hosts", address]
            subprocess.run(arguments, cwd=directory, env=environment, check=True)
        server.stdin.close()
        server.wait()
    return max(conversations, key=lambda pieces: sum(len(piece.data) for piece in pieces))


def _relay(listener: socket.socket, server: tuple[str, int], conversations: list[list[Piece]]) -> None:
    while True:
        try:
            client = listener.accept()[0]
        except OSError:
            return
        upstream = socket.create_connection(server)
        pieces: list[Piece] = []
        conversations.append(pieces)
        for source, target, by_client in ((client, upstream, True), (upstream, client, False)):
            threading.Thread(target=_copy, args=(source, target, by_client, pieces), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket, by_client: bool, pieces: list[Piece]) -> None:
    while data := source.recv(1 << 16):
        pieces.append(Piece(by_client, data))
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def join(pieces: list[Piece]) -> Iterator[Piece]:
    """What one side said before the other spoke."""
    said = Piece(True, b"")
    for piece in pieces:
        if piece.by_client != said.by_client:
            yield said
            said = Piece(piece.by_client, b"")
        said.data += piece.data
    yield said


def show(piece: Piece) -> Iterator[str]:
    """Each message of a piece: who says what, its bytes, and its fields."""
    at = 0
    while at < len(piece.data):
        number = messages.MessageType(int.from_bytes(piece.data[at : at + 8], "big"))
        message, end = codec.read(number, piece.data, at + 8)
        body = b""
        if number in messages.STREAMED:
            size = int.from_bytes(piece.data[end : end + 8], "big")
            body = piece.data[end + 8 : end + 8 + size]
            end += 8 + size
        who = "client" if piece.by_client else "server"
        yield f"\n## {number.name}, says the {who}\n\n"
        yield "```\n" + "".join(_hexadecimal(piece.data[at:end])) + "```\n\n"
        for name in type(message).__struct_fields__:
            yield f"- `{name}` = `{_short(getattr(message, name))}`\n"
        if number in messages.STREAMED:
            yield f"- body: {len(body)} bytes\n"
        at = end


def _hexadecimal(data: bytes) -> Iterator[str]:
    for start in range(0, min(len(data), MOST_BYTES), LINE_BYTES):
        line = data[start : min(start + LINE_BYTES, MOST_BYTES)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        yield f"{start:04x}  {line[:8].hex(' '):23}  {line[8:].hex(' '):23}  {text}\n"
    if len(data) > MOST_BYTES:
        yield f"      … {len(data) - MOST_BYTES} bytes more\n"


def _short(value: object) -> str:
    text = repr(value).replace("`", "'")
    return text if len(text) <= 160 else text[:157] + "…"


if __name__ == "__main__":
    sys.exit(main())
