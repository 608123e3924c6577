"""One compiler call on the farm: understood, its inputs found, sent, its outputs installed as the compiler would.

Whatever stands in the way is Local, with its reason. A compile that fails on the farm is done again here: its messages
and what it removes are then the compiler's own, and a fault of the farm can't be taken for one of the source.
"""

from functools import partial

from msgspec import structs

from rakefarm.cc import layout
from rakefarm.cc.arrival import Compiled, install
from rakefarm.cc.attempts import Attempts
from rakefarm.cc.cancel import Cancel
from rakefarm.cc.closure import Closure
from rakefarm.cc.dialogue import Request
from rakefarm.cc.farms import Farms, HostFarm
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.here import Here
from rakefarm.cc.inquiry import Inquiry, find_inputs, inquire
from rakefarm.cc.misses import HIT, SERVED
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.results import Made
from rakefarm.cc.scratch import Scratch
from rakefarm.cc.settings import ResultCaches
from rakefarm.cc.shipment import Shipments
from rakefarm.cc.toolchain import Toolchains
from rakefarm.client.outputs import Incoming, OutputError


class Engine:
    """Holds what calls have in common: caches, connections. For any thread; the process's directory must be `/`."""

    def __init__(self, scratch: Scratch, farms: Farms, caches: ResultCaches, files: FileCache, here: Here) -> None:
        self.files = files
        self._here = here
        self._toolchains = Toolchains()
        self._farms = farms
        self._caches = caches
        self._scratch = scratch
        self._shipments = Shipments(scratch)

    def compile(self, request: Request, cancel: Cancel) -> Compiled:
        """Do the call, on the farm or out of the result cache; or here, if that is the only way to have its result for
        another time. Raises Local."""
        inquiry = inquire(request, self._toolchains)
        shared = layout.shared_by(inquiry.toolchain)
        layout.check_place(inquiry, shared)
        cache = self._caches.find(request.environ)
        if cache is None:
            return self._compile_there(inquiry, find_inputs(inquiry, self.files), shared, cancel, repeatable=False)
        results, counts = cache
        lookup = results.find(inquiry)
        made = lookup.made
        if made is None:
            closure = find_inputs(inquiry, self.files)
            key, made = results.find_by_inputs(lookup, closure)
            keep = partial(results.keep, inquiry, lookup, key, closure)
            if made is None:
                counts.add(lookup.miss.cause.name)
                compiled = self._compile(inquiry, closure, shared, cancel)
                if compiled.kept:
                    counts.add(SERVED)
                do_keep = None if compiled.made is None else partial(keep, compiled.made)
                return structs.replace(compiled, missed=str(lookup.miss), keep=do_keep)
            keep(None)
        _put_in_place(inquiry, made)
        counts.add(HIT)
        return Compiled(made.stderr)

    def _compile(self, inquiry: Inquiry, closure: Closure, shared: layout.Shared, cancel: Cancel) -> Compiled:
        try:
            return self._compile_there(inquiry, closure, shared, cancel, repeatable=True)
        except Local as reason:
            if reason.reason not in (Reason.NO_HOST, Reason.NO_SERVER):
                raise
            with cancel.descriptor() as gone:
                run = self._here.run(inquiry, closure, gone, lambda: find_inputs(inquiry, self.files))
            return Compiled(run.stderr, here=reason, status=run.status, stdout=run.stdout, made=run.made)

    def _compile_there(
        self, inquiry: Inquiry, closure: Closure, shared: layout.Shared, cancel: Cancel, repeatable: bool
    ) -> Compiled:
        farm = self._farms.find(inquiry.request.environ)
        if isinstance(farm, HostFarm):
            attempts = Attempts(farm, self._scratch, self._shipments, inquiry, closure, shared, cancel, repeatable)
            return attempts.run()
        from rakefarm.cc.engine_attempt import EngineAttempt  # with gRPC, which calls by hosts do without

        return EngineAttempt(farm, self._scratch, inquiry, closure, shared, cancel, repeatable).run()


def _put_in_place(inquiry: Inquiry, made: Made) -> None:
    """The outputs of an earlier compile. Raises Local."""
    incoming = Incoming()
    try:
        for path, content in zip(inquiry.targets, made.outputs, strict=True):
            incoming.take(path[1:], False, content)
        install(incoming, inquiry)
    except OutputError as error:
        raise Local(Reason.FAULT, str(error)) from error
    finally:
        incoming.close()
