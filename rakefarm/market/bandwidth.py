"""What a client knows of a wire: how long sending will take, and what a transfer tells of the next."""

BANDWIDTH_FLOOR = 1e5
START_BANDWIDTH = 1e8
"""Bytes a second assumed until a transfer large enough to measure has been seen: a gigabit of Ethernet."""
MEASURED_BYTES = 1 << 20
NEWEST_SHARE = 0.3


def transfer_seconds(size_bytes: int, bandwidth: float) -> float:
    """How long sending so much takes at that bandwidth (bytes a second)."""
    return size_bytes / max(bandwidth, BANDWIDTH_FLOOR)


def learn_bandwidth(bandwidth: float, size_bytes: int, seconds: float) -> float:
    """The bandwidth after one transfer; a small one says nothing, since it fits into buffers."""
    if size_bytes < MEASURED_BYTES or seconds <= 0.0:
        return bandwidth
    return bandwidth + NEWEST_SHARE * (size_bytes / seconds - bandwidth)
