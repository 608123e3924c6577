"""A compiler call, tried on host after host: sent, and its outputs installed as the compiler would."""

import os

from msgspec import structs

from rakefarm import transport
from rakefarm.capture import Capture
from rakefarm.cc import layout, shipment
from rakefarm.cc.arrival import Compiled, split_told, take_in
from rakefarm.cc.cancel import Cancel
from rakefarm.cc.closure import Closure
from rakefarm.cc.commandline import Call
from rakefarm.cc.farms import HostFarm
from rakefarm.cc.inquiry import Inquiry
from rakefarm.cc.options import Role
from rakefarm.cc.placement import Place
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.scratch import Scratch
from rakefarm.cc.shipment import Shipments
from rakefarm.cc.toolchain import Toolchain
from rakefarm.client import remote
from rakefarm.client.inputs import Manifest
from rakefarm.client.link import Link
from rakefarm.client.outputs import Incoming
from rakefarm.market.curve import Curve
from rakefarm.market.history import signature_of
from rakefarm.transport import Lost
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Need, Variable
from rakefarm.wire.request import digest_of

ATTEMPTS = 3
SOON_S = 0.4
"""Within this time a host's kernel acknowledges what it was sent, or its packets are lost."""
ENTRY_BYTES, BUFFERED_BYTES = 80, 32 << 10
"""What an input takes in an order besides its path; and what any receiver's buffers hold."""
OWN_HEADERS = "headers like ours"
"""What a host lacks that is sent the system's headers, too."""
SAME_NEED = Need("same", layout.SAME_PATH.decode())


class Attempts:
    """One call, tried on host after host."""

    def __init__(
        self,
        farm: HostFarm,
        scratch: Scratch,
        shipments: Shipments,
        inquiry: Inquiry,
        closure: Closure,
        shared: layout.Shared,
        cancel: Cancel,
        repeatable: bool,
    ) -> None:
        self._farm = farm
        self._scratch = scratch
        self._shipments = shipments
        self._inquiry = inquiry
        self._call = inquiry.call
        self._toolchain = inquiry.toolchain
        self._closure = closure
        self._shared_package = self._package = layout.pack(inquiry, closure, shared)
        self._cancel = cancel
        self._repeatable = repeatable
        self._moves = layout.can_ship(self._call, self._toolchain)
        self._signature = _signature(self._call, self._toolchain)
        self._needs = (*(Need(key, value) for key, value in self._toolchain.needs), SAME_NEED)
        self._task, self._work_s = farm.describe(self._signature, self._needs, self._package.size)

    def run(self) -> Compiled:
        """Raises Local."""
        excluded: set[str] = set()
        problem = "no server answers"
        ships = self._farm.ships_toolchains and self._moves and shipment.can_use(self._call)
        essential = None if ships else self._toolchain
        holder = self._find_holder(essential) if self._repeatable else None
        for _ in range(ATTEMPTS):
            place, holder = holder, None
            if place is None:
                name, placement = self._shared_package.name, self._farm.placement
                place = placement.acquire(essential, self._work_s, excluded, lambda: self._cancel.gone, name)
            if place is None:
                break
            curve: Curve | None = None
            try:
                self._choose_package(place, ships)
                compiled, curve = self._attempt(place)
                if compiled.kept:
                    self._farm.holders.learn(found=True)
                return compiled
            except remote.Declined as declined:
                problem, curve = f"{place.member.name}: {declined}", declined.curve
                lacking = {"file": self._toolchain, "same": OWN_HEADERS}.get(declined.reason)
                if lacking is not None:
                    self._farm.placement.note_lacking(place, lacking)
                if (lacking == OWN_HEADERS and self._moves) or (lacking == self._toolchain and ships):
                    continue  # there once more, with all headers, or the compiler, too
            except (Lost, ProtocolError, OSError) as error:
                problem = f"{place.member.name}: {error}"
                if isinstance(error, Lost) and "no sign of life" in str(error):
                    self._farm.farm.leave_out(place.member, str(error))
            finally:
                self._farm.placement.release(place, curve)
                if self._farm.placement.idle:
                    self._farm.farm.flush_idle()
            excluded.add(place.member.name)
        raise Local(Reason.CANCELLED if self._cancel.gone else Reason.NO_SERVER, problem)

    def _find_holder(self, lacking: object) -> Place | None:
        """The host that has the result, which then counts there; None when none is known to, or there is no choice."""
        holders, placement = self._farm.holders, self._farm.placement
        places = placement.usable(lacking)
        if len(places) < 2 or not holders.pays:
            return None
        holder = holders.find(places, self._task, digest_of(remote.request_of(self._order())))
        if holder is None:
            holders.learn(found=False)
        else:
            placement.enter(holder)
        return holder

    def _choose_package(self, place: Place, ships: bool) -> None:
        """What that host is to be sent, by what it is known to lack. Raises Declined when it can't be given that."""
        self._package, needs = self._shared_package, self._needs
        if ships and self._farm.placement.lacks(place, self._toolchain):
            sent = self._shipments.find(self._toolchain, self._call.language, self._inquiry.request.environ)
            if sent is None:
                raise remote.Declined("toolchain", "it has another compiler, and ours can't be sent", None)
            self._package = layout.pack(self._inquiry, self._closure, layout.SHARED_WITH_NOBODY, sent)
            needs = (Need("arch", os.uname().machine), SAME_NEED)
        elif self._moves and self._farm.placement.lacks(place, OWN_HEADERS):
            stranger = layout.shared_with_stranger(self._toolchain)
            self._package = layout.pack(self._inquiry, self._closure, stranger)
        self._task = structs.replace(self._task, needs=needs, input_bytes=self._package.size)

    def _attempt(self, place: Place) -> tuple[Compiled, Curve | None]:
        """Once, on one host. Raises Declined, Lost or a protocol error (not run), Local, OSError (ours)."""
        farm = self._farm.farm
        link = farm.checkout_fresh(place.member)
        if link is None:
            raise Lost(place.member.problem or "it can't be reached")
        stdout, stderr, incoming = Capture(), Capture(), Incoming()
        try:
            self._cancel.use(link)
            executed = remote.execute(
                self._order(), place.member, link, incoming, stdout, stderr, self._limit_silence(link)
            )
            link.acknowledge()
            result = executed.result
            if result.outcome != "exited" or result.status:
                raise Local(Reason.FAILED_THERE, f"{place.member.name}: {result.outcome} {result.status}")
            box, rest = split_told(stdout)
            if not box or rest:
                raise Local(Reason.FAILED_THERE, f"{place.member.name}: it did not say where it ran")
            messages = b"".join(stderr.pieces()).replace(box, b"")
            made = take_in(incoming, self._package, self._inquiry, box, messages, self._repeatable)
            if not result.kept:
                self._farm.learn(self._signature, self._task, result)
            return Compiled(messages, place.member.name, made=made, kept=bool(result.kept)), executed.curve
        except remote.Declined:
            self._give_back(place, link)
            link = None
            raise
        except Local:
            self._give_back(place, link)
            link = None
            raise
        except BaseException:
            farm.discard(link)
            link = None
            raise
        finally:
            self._cancel.use(None)
            incoming.close()
            stdout.close()
            stderr.close()
            if link is not None:
                self._give_back(place, link)

    def _limit_silence(self, link: Link) -> remote.PhaseListener:
        """Have the order acknowledged soon by the host's kernel, however busy the host is; what the link does in later
        phases may take its time. A long order is left alone, since who can't read it yet fills buffers."""
        sock = link.transport.socket
        order_bytes = len(self._package.command) + sum(
            [len(entry.path) + ENTRY_BYTES for entry in self._package.entries]
        )
        transport.limit_unacknowledged(sock, SOON_S if order_bytes < BUFFERED_BYTES else transport.UNACKNOWLEDGED_S)

        def tell(phase: str, _cpu_s: float, _memory_bytes: int) -> None:
            if phase == "sending":
                transport.limit_unacknowledged(sock, transport.UNACKNOWLEDGED_S)

        return tell

    def _give_back(self, place: Place, link: Link) -> None:
        self._cancel.use(None)
        self._farm.farm.give_back(place.member, link)

    def _order(self) -> remote.Order:
        package = self._package
        variables = self._inquiry.variables
        sources = (self._scratch.keep(package.same, package.entries[0].sha256), *package.sources[1:])
        return remote.Order(
            task=self._task,
            command=package.command,
            manifest=Manifest(package.entries, sources),
            produces=package.produces,
            timeout_s=None,
            environment=tuple([Variable(os.fsencode(n), os.fsencode(value)) for n, value in variables.items()]),
            repeatable=self._repeatable,
            label=os.fsdecode(self._call.source)[-100:].encode("utf-8", "replace").decode(),
        )


def _signature(call: Call, toolchain: Toolchain) -> str:
    """What the same compile of another day is known by, in the form of the market's history."""
    flags = [each for word in call.words if word.role in (Role.PASS, Role.SEARCH) for each in word.written()]
    words = [os.path.basename(toolchain.program), *flags, b"-c", os.path.basename(call.source)]
    return signature_of(os.fsdecode(b" ".join(words)))
