"""What a service manager is told (sd_notify(3)): systemd's Type=notify. Nothing where nobody asked."""

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Say READY=1, STOPPING=1 or STATUS=… to the socket that $NOTIFY_SOCKET names, if it does."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):  # the abstract namespace
        path = "\0" + path[1:]
    # Who started us may be gone, and we serve on.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(path)
        sock.sendall(state.encode())
