"""Places for the commands that run on this machine: a slot of the user's, and under make a token.

    local actions of this build ─┐                       ┌─ other builds of this user, and their
    server of this build, `local` ┴─► slots (one fifo) ◄─┘  servers

All builds of a user share the slots of the machine, one a core (see `slots`): so ten builds at once keep its cores
busy once, not ten times. What waits for a slot here must not wait for ever, and there are three ways to:

- Actions of a set may wait for each other, as a test does for the server that another action runs: all of them must
  start. A slot is for a core, and who only waits uses none. So a command that has hardly used one for a beat, with no
  thread at work, gives its slot back, and takes one again, if there is one, when it is at work again. If all slots are
  held by commands that wait for what has not begun, all come free within two beats.
- Other builds may run something for hours, or be stopped with Ctrl-Z. A build that has got no slot for a while, and has
  no command at work here, begins one without: it gets on, at one command at a time.
- A build that is itself the command of an action: its first command runs in the slot of that action, which otherwise
  waits for it.

None of this holds for tokens: make's N is its user's word, and its protocol has a token for each command that runs. The
first command needs none of them, so a build always gets on. Slots and tokens are taken together or not at all, so that
nobody keeps one from others while it waits for the other.
"""

import contextlib
import errno
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from rakefarm.embedded import Shares
from rakefarm.jobserver import JobServer, NoJobServer, Token, Tokens, from_environment, own_token
from rakefarm.process_tree import is_at_work, processor_seconds
from rakefarm.slots import GIVE_WAY_S, LOOK_AGAIN_S, OpenSlots

IDLE_SHARE = 0.25
"""Of a core, in a beat of `process.run`: who uses less and is not at work now only waits, as a loop around a short
sleep does."""
PATIENCE_S = 10.0
"""How long a build without a command at work waits for a slot before it begins one without."""
NESTED = b"RAKEFARM_NESTED"
"""Set for the commands of local actions: a build among them has a slot already."""
_NONE = -1
_NESTED = -2
"""The slot of the action that this build is part of."""
_BEYOND = -3
"""None, where there should be one: see `PATIENCE_S`."""


class Place:
    """What a command holds while it runs here. For the thread that runs it; `release` for any."""

    def __init__(self, places: "Places", slot: int, token: Token | None) -> None:
        self._places = places
        self.slot = slot
        self.token = token
        self._used_s = 0.0
        self._looked_at = time.monotonic()

    def beat(self, pid: int) -> None:
        """Some time has passed: does the command still need its slot?"""
        now, used_s = time.monotonic(), processor_seconds(pid)
        share = (used_s - self._used_s) / max(now - self._looked_at, 1e-3)
        self._used_s, self._looked_at = used_s, now
        at_work = share >= IDLE_SHARE or is_at_work(pid)
        if at_work and self.slot == _NONE:
            self._places.take_again(self)
        elif not at_work and self.slot != _NONE:
            self._places.lend(self)


class Places:
    """The places of one build. Raises nothing: what can't be had is a warning, and the build goes on without."""

    def __init__(self, environ: Mapping[str, str], slots: int, warn: Callable[[str], None]) -> None:
        """`slots`: how many commands of this user run here at one time; 0: one a core."""
        self._count = slots or len(os.sched_getaffinity(0))
        self._environ = environ
        self._warn = warn
        self._lock = threading.Lock()
        self._opened: tuple[str, OpenSlots, Tokens] | None = None
        self._nested_free = os.fsdecode(NESTED) in environ
        self._beyond = self._told = False
        self._out: set[Place] = set()
        self.lent: Callable[[], None] = lambda: None
        """Told when a command that runs has given its slot back, so that one more may run."""

    # --- where they come from ---------------------------------------------------------------------------

    def _open(self) -> tuple[str, OpenSlots, Tokens]:
        """Path of the slots, our view of them, and the tokens; opened when first needed: many builds need none."""
        with self._lock:
            if self._opened is None:
                self._opened = (*self._open_slots(), Tokens(self._job_servers()))
            return self._opened

    def _open_slots(self) -> tuple[str, OpenSlots]:
        try:
            path = shared_path(self._environ)
            return path, OpenSlots(path, self._count)
        except OSError as error:
            self._warn(f"other builds can't know what runs here: {error.filename}: {error.strerror}")
        reader, writer = os.pipe()
        os.close(writer)
        path = f"/proc/{os.getpid()}/fd/{reader}"  # without a name, but our own server finds it, too
        return path, OpenSlots(path, self._count)

    def _job_servers(self) -> list[JobServer]:
        try:
            server = from_environment(self._environ)
        except NoJobServer as error:
            self._warn(f"make's job server can't be used, local commands run without its tokens: {error}")
            return []
        return [] if server is None else [own_token(), server]

    @property
    def shares(self) -> Shares:
        """What a server of ours on this machine must keep to."""
        path, slots, tokens = self._open()
        inherited = [descriptor for server in tokens.servers for descriptor in server.inherited]
        return Shares(slots.count, path, tuple(server.auth for server in tokens.servers), tuple(inherited))

    @property
    def limit(self) -> int:
        """How many commands may be at work here at one time, on behalf of all builds of this user."""
        return self._count

    # --- taking and giving back -------------------------------------------------------------------------

    @contextlib.contextmanager
    def place(self, cancel: int) -> Iterator[Place | None]:
        """A place for a command, when there is one; given back at the end. None when `cancel` (a descriptor) became
        readable first."""
        place = self._wait(cancel)
        try:
            yield place
        finally:
            if place is not None:
                self.release(place)

    def _wait(self, cancel: int) -> Place | None:
        _, slots, tokens = self._open()
        if (place := self._try_take(slots, tokens)) is not None:
            return place
        started = time.monotonic()
        with slots.waiting():
            if slots.others_wait and _wait_readable([cancel], GIVE_WAY_S):
                return None
            while (place := self._try_take(slots, tokens, waited_s=time.monotonic() - started)) is None:
                # Only what is lacking is awaited: the other is there, and would wake us for nothing.
                lacks_token = tokens.needed and slots.count_taken() < slots.count
                awaited = tokens.readers if lacks_token else (slots.event,)
                if cancel in _wait_readable([cancel, *awaited], LOOK_AGAIN_S):
                    return None
        return place

    def _try_take(self, slots: OpenSlots, tokens: Tokens, waited_s: float = 0.0) -> Place | None:
        """A place, or None and nothing is taken."""
        slot = self._try_take_slot(slots, waited_s)
        if slot == _NONE:
            return None
        token = None
        if tokens.needed:
            token = tokens.try_take()
            if token is None:
                self._give_slot_back(slot, wake=False)
                return None
        place = Place(self, slot, token)
        with self._lock:
            self._out.add(place)
        return place

    def _try_take_slot(self, slots: OpenSlots, waited_s: float) -> int:
        with self._lock:
            if self._nested_free:
                self._nested_free = False
                return _NESTED
        if waited_s or not slots.others_wait:
            slot = slots.try_take(woken=waited_s > 0.0)
            if slot is not None:
                return slot
        if waited_s < PATIENCE_S:
            return _NONE
        with self._lock:
            if self._beyond or any(place.slot != _NONE for place in self._out):
                return _NONE
            self._beyond = True
        if not self._told:
            self._told = True
            self._warn(f"other builds use all {slots.count} slots of this machine; going on with one command at a time")
        return _BEYOND

    def _give_slot_back(self, slot: int, wake: bool = True) -> None:
        if slot >= 0:
            self._open()[1].give_back(slot, wake)
        with self._lock:
            self._nested_free |= slot == _NESTED
            self._beyond &= slot != _BEYOND

    def lend(self, place: Place) -> None:
        """Its command only waits: another may have the slot."""
        slot, place.slot = place.slot, _NONE
        self._give_slot_back(slot)
        self.lent()

    def take_again(self, place: Place) -> None:
        """Its command is at work again, without a slot: have one counted for it, if there is one."""
        slots = self._open()[1]
        slot = None if slots.others_wait else slots.try_take()
        if slot is not None:
            place.slot = slot

    def release(self, place: Place) -> None:
        """Its command has ended. Only the first time counts."""
        with self._lock:
            if place not in self._out:
                return
            self._out.discard(place)
        if place.token is not None:
            self._open()[2].give_back(place.token)
        self._give_slot_back(place.slot)

    def release_all(self) -> None:
        """The build is over, and no command runs here any more, even if a thread has yet to say so."""
        with self._lock:
            out = list(self._out)
        for place in out:
            self.release(place)


def shared_path(environ: Mapping[str, str]) -> str:
    """The fifo of this user's slots: in $XDG_RUNTIME_DIR where that is as it must be, else beside the store. Not in
    TMPDIR, of which a session may have one of its own; and it stays, since to remove it would be to ask who has it
    open. Raises OSError."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if not _is_private(runtime):
        runtime = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or "/var/cache", ".cache")
    directory = os.path.join(runtime, "rakefarm")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, "slots")
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    status = os.lstat(path)
    if not stat.S_ISFIFO(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(errno.EEXIST, "it is there already and not a fifo of ours", path)
    return path


def _is_private(directory: str) -> bool:
    try:
        status = os.stat(directory)
    except (OSError, ValueError):
        return False
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return ours and os.access(directory, os.W_OK | os.X_OK)


def _wait_readable(descriptors: Sequence[int], seconds: float) -> set[int]:
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(seconds * 1000)}
