"""What the broker hands to a runner."""

from collections.abc import Mapping

from msgspec import Struct

from rakefarm.client.farm import Member
from rakefarm.client.jobs import RemoteJob
from rakefarm.client.link import Link
from rakefarm.market.policy import Award


class Assignment(Struct, frozen=True):
    """An action for a runner: where, by which award, the action that hosts were asked for to decide it (0: none), and
    the link that holds a slot for it, if there is one."""

    job: RemoteJob
    member: Member
    award: Award
    terms: Mapping[str, float]
    quoted_as: int
    link: Link | None = None
    lease: int = 0
