"""The farms that calls have named, each with its connections, its placement and what its compiles took before; and the
engines."""

import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm.cc.holders import Holders
from rakefarm.cc.placement import Placement
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.settings import CallSettings
from rakefarm.client.experience import Experiences
from rakefarm.client.farm import Farm
from rakefarm.config import DEFAULT_PORT, ClientSettings, ConfigError
from rakefarm.events import Stream
from rakefarm.hosts import Host, HostSyntaxError, parse_host_list, with_default_port
from rakefarm.market.bid import Coefficients
from rakefarm.market.kind import COMPILE
from rakefarm.wire.messages import Need, Result, Task

if TYPE_CHECKING:
    from rakefarm.cc.engine_farm import EngineFarm

SAVE_EACH = 500
NETWORK_S = 0.45
"""A host whose kernel has not accepted a connection by then is off, or out of reach: the call goes elsewhere."""
DEFAULT_WORK_S = Coefficients().work[COMPILE]


class HostFarm(Struct):
    """One list of hosts. `ships_toolchains`: one that has another compiler is sent ours."""

    farm: Farm
    placement: Placement
    holders: Holders
    experiences: Experiences
    lock: threading.Lock
    ships_toolchains: bool = False
    learned: int = 0

    @property
    def room(self) -> int:
        """How many compiles it takes at once."""
        return self.placement.room

    def describe(self, signature: str, needs: tuple[Need, ...], input_bytes: int) -> tuple[Task, float]:
        """The task as the market sees it, and what it is expected to take (reference seconds)."""
        with self.lock:
            seen = self.experiences.history.predict(signature, COMPILE, input_bytes)
        sure = seen is not None and seen.sure
        task = Task(
            COMPILE, needs, input_bytes, seen.work_s if seen and sure else 0.0, seen.memory_bytes if seen else 0
        )
        return task, seen.work_s if seen else DEFAULT_WORK_S

    def learn(self, signature: str, task: Task, result: Result) -> None:
        """A compile has succeeded."""
        with self.lock:
            self.experiences.history.learn(
                signature, task.kind, task.input_bytes, result.work_s, result.peak_memory_bytes
            )
            self.learned += 1
            due = self.learned % SAVE_EACH == 0
        if due:
            self.save()

    def save(self) -> None:
        """Keep what was learned."""
        with self.lock:
            if self.learned:
                self.experiences.save()


@lru_cache(maxsize=64)
def _hosts(named: str) -> tuple[Host, ...]:
    """Those of a list, but for this machine. Raises HostSyntaxError."""
    hosts = [with_default_port(host, DEFAULT_PORT) for host in parse_host_list(named)]
    return tuple([host for host in hosts if not host.is_local])


class Farms:
    """All of a helper's. For any thread."""

    def __init__(self, environ: Mapping[str, str], settings: CallSettings) -> None:
        self._environ = environ
        self._settings = settings
        self._lock = threading.Lock()
        self._farms: dict[object, HostFarm] = {}
        self._engines: dict[ClientSettings, EngineFarm] = {}

    def find(self, environ: Mapping[str, str]) -> "HostFarm | EngineFarm":
        """The farm that a call with these variables is for. Raises Local when it names none, or a wrong one."""
        try:
            settings = self._settings.find(environ)
        except ConfigError as error:
            raise Local(Reason.NO_HOST, str(error)) from error
        if settings.engine.url:
            return self._find_engine(settings)
        try:
            named = environ.get("RAKEFARM_HOSTS") or "\n".join(settings.hosts)
            hosts = _hosts(named)
        except (ConfigError, HostSyntaxError) as error:
            raise Local(Reason.NO_HOST, str(error)) from error
        if not hosts:
            raise Local(Reason.NO_HOST)
        key = (hosts, settings)
        with self._lock:
            known = self._farms.get(key)
            if known is None:
                try:
                    stream = Stream(os.urandom(8).hex(), [], None)
                    farm = Farm(hosts, settings, environ, stream, network_s=NETWORK_S)
                except ConfigError as error:
                    raise Local(Reason.NO_HOST, str(error)) from error
                known = HostFarm(
                    farm,
                    Placement(farm),
                    Holders(farm),
                    Experiences(self._environ),
                    threading.Lock(),
                    settings.ship_toolchain,
                )
                farm.start()
                self._farms[key] = known
        return known

    def _find_engine(self, settings: ClientSettings) -> "EngineFarm":
        """Raises Local, as of no server, so that the user is told of a wrong address or token."""
        with self._lock:
            known = self._engines.get(settings)
            if known is None:
                # gRPC takes longer to be loaded than a compile, and most farms have no engine.
                from rakefarm.cc.engine_farm import EngineFarm

                try:
                    known = self._engines[settings] = EngineFarm(settings)
                except ConfigError as error:
                    raise Local(Reason.NO_SERVER, str(error)) from error
        return known

    def close(self) -> None:
        """Close every connection, and keep what was learned."""
        with self._lock:
            farms, engines = list(self._farms.values()), list(self._engines.values())
        for engine in engines:
            engine.close()
        for farm in farms:
            farm.farm.close()
        for farm in farms:
            farm.save()
