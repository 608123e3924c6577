"""Whether a STATUS_REPLY can be true. The wire has refused what is not finite; a host may still say anything."""

from rakefarm.client.quotes import ABSURD, absurd_curve
from rakefarm.wire import RemoteProtocolError
from rakefarm.wire.messages import StatusReply


def check_status(status: StatusReply) -> None:
    """Raises RemoteProtocolError when it can't."""
    problem = absurd_curve(status.curve)
    if not (0 <= status.price < ABSURD and 0 <= status.uptime_s < ABSURD and 0 <= status.clock_s < 1e11):
        problem = "an absurd price, uptime or clock in its status"
    if not (status.price or status.declined):
        problem = "neither a price nor a reason in its status"
    for space in (status.memory, status.sandbox, status.cache):
        if space.free_bytes > space.total_bytes:
            problem = "more space that is free than there is in its status"
    if len(status.occupants) > 256 or not all(0 <= one.elapsed_s < ABSURD for one in status.occupants):
        problem = "absurd occupants in its status"
    if problem:
        raise RemoteProtocolError(problem)
