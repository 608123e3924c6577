"""A server that lies, of our own wire code: it greets as one should, and then says what a test wants said."""

import socket
import threading
from collections.abc import Callable

from msgspec import structs

from rakefarm.market.curve import Curve
from rakefarm.transport import Lost, Transport
from rakefarm.wire import Connection, ProtocolError, Role
from rakefarm.wire.messages import Execute, Hello, Message, Offer, Quote, QuoteRequest, Wait, Welcome

CURVE = Curve(
    cores=4,
    slots=4,
    speed=1.0,
    busy=0.0,
    busy_in_all=0.0,
    running=0,
    waiting=0,
    version=1,
    valid_s=1.0,
    free_in_s=(0.0,) * 4,
)
OFFER = Offer(price=1e-6, seconds=1e-6, terms=(), lease=0, valid_s=1.0, curve=CURVE)


Say = Callable[[Transport, Offer], None]
"""How an offer is given."""


Perform = Callable[[Transport, Execute], None]
"""What comes of a command."""


def say(transport: Transport, offer: Offer) -> None:
    transport.send(Quote(offer))


class Liar:
    """A server that greets well, answers every question with `offer` (None: never), does with a command what `perform`
    does (None: nothing), and counts what it is asked."""

    def __init__(self, offer: Offer | None = OFFER, say: Say = say, perform: Perform | None = None) -> None:
        self._offer = offer
        self._say = say
        self._perform = perform
        self.asked = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.executes = 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        transport = Transport(sock, Connection(Role.SERVER))
        try:
            while (message := transport.receive()) is not None:
                assert not isinstance(message, bytes)
                self._answer(transport, message)
        except (Lost, ProtocolError, OSError):
            pass

    def _answer(self, transport: Transport, message: Message) -> None:
        match message:
            case Hello():
                transport.send(Welcome(1, (), b"", "loopback", "liar", "0", 4, 4, "none", ()))
            case QuoteRequest() | Wait() if self._offer is not None:
                self.asked += 1
                lease = 1 if isinstance(message, Wait) else 0
                self._say(transport, structs.replace(self._offer, lease=lease))
            case Execute():
                self.executes += 1
                if self._perform is not None:
                    self._perform(transport, message)

    def close(self) -> None:
        self._listener.close()
        for sock in self._sockets:
            sock.close()
