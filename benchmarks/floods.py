"""How long an honest client takes to be served while others hold or open connections without proving anything.

    python3 benchmarks/floods.py [ROUNDS]

One server on loopback as it is by default, with a key. The honest client is our own: it connects, makes TLS, proves the
key and has the server prove it, and gets a price. Beside it: nobody; 100 and 1,000 connections that say nothing, from
its own address and from others; and a thousand new ones a second. Exit status 1: the median is above what it may be.
"""

import contextlib
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from farm import ENVIRONMENT, server

from rakefarm.client.credentials import load_credentials
from rakefarm.client.link import connect
from rakefarm.config import ClientSettings
from rakefarm.hosts import Host, parse_host
from rakefarm.security.keys import add_key
from rakefarm.wire.messages import Task

MOST_S = 0.1
ROUNDS = 40
RATE = 1000
HELD = 200
OWN, OTHERS = ("127.0.0.1",), tuple(f"127.0.0.{number}" for number in range(2, 34))


def serve_honest(host: Host, settings: ClientSettings) -> float:
    """Seconds from nothing to a price."""
    began = time.perf_counter()
    link = connect(host, os.environ, 10.0, load_credentials(settings, [host], os.environ))
    link.ask(Task("compile", (), 0, 0.0, 0))
    link.receive()
    elapsed = time.perf_counter() - began
    link.close()
    return elapsed


def open_one(host: Host, source: str) -> socket.socket:
    """A connection that will say nothing."""
    return socket.create_connection((host.name, host.port), 10.0, (source, 0))


@contextlib.contextmanager
def idle(host: Host, count: int, sources: tuple[str, ...]) -> Iterator[None]:
    """So many of them, and as many again as the server sends away."""
    sockets = [open_one(host, sources[number % len(sources)]) for number in range(count)]
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()


@contextlib.contextmanager
def flood(host: Host, sources: tuple[str, ...]) -> Iterator[None]:
    """New ones all the time, at the rate that is wanted or as fast as this machine can."""
    stop, made = threading.Event(), [0]

    def run() -> None:
        held: list[socket.socket] = []
        began = time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(OSError):
                held.append(open_one(host, sources[made[0] % len(sources)]))
                made[0] += 1
            if len(held) > HELD:
                held.pop(0).close()
            time.sleep(max(0.0, began + made[0] / RATE - time.monotonic()))
        for sock in held:
            sock.close()

    thread, began = threading.Thread(target=run), time.monotonic()
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        print(f"    ({made[0] / (time.monotonic() - began):.0f} connections a second)", flush=True)


def main() -> int:
    """Answers the exit status."""
    good, rounds = True, int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as directory:
        key_file = os.path.join(directory, "keys")
        add_key(key_file, "benchmark")
        ENVIRONMENT["XDG_STATE_HOME"] = directory
        settings = ClientSettings(key_file=key_file)
        with server("--key-file", key_file) as running:
            host = parse_host(running.address)
            beside = {
                "nobody else": contextlib.nullcontext(),
                "100 idle of its address": idle(host, 100, OWN),
                "100 idle of others": idle(host, 100, OTHERS),
                "1,000 idle of its address": idle(host, 1000, OWN),
                "1,000 idle of others": idle(host, 1000, OTHERS),
                "a flood from its address": flood(host, OWN),
                "a flood from others": flood(host, OTHERS),
            }
            for name, others in beside.items():
                with others:
                    times = sorted(serve_honest(host, settings) for _ in range(rounds))
                median = statistics.median(times)
                good &= median <= MOST_S
                print(
                    f"{name:<26} median {median * 1000:6.1f} ms, nine in ten {times[rounds * 9 // 10] * 1000:6.1f} ms,"
                    f" worst {times[-1] * 1000:6.1f} ms",
                    flush=True,
                )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
