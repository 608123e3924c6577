"""A relay that counts the bytes that pass it: what a build sends, and what comes back."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Counter:
    """Forwards every connection to one address. `sent` and `received` are bytes as the client sees them."""

    def __init__(self, host: str, port: int) -> None:
        self.sent = self.received = 0
        self._target = (host, port)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    self.sent += len(data) if from_client else 0
                    self.received += 0 if from_client else len(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def take(self) -> tuple[int, int]:
        """Bytes sent and received since the last time."""
        with self._lock:
            counted = self.sent, self.received
            self.sent = self.received = 0
        return counted

    def close(self) -> None:
        """Accept nothing more."""
        self._listener.close()


@contextlib.contextmanager
def counted(address: str) -> Iterator[Counter]:
    """In front of HOST:PORT."""
    host, _, port = address.rpartition(":")
    counter = Counter(host, int(port))
    try:
        yield counter
    finally:
        counter.close()
