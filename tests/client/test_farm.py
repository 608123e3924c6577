"""The hosts of a build: for whom its beginning waits."""

import threading
from types import SimpleNamespace

import pytest

from rakefarm import embedded
from rakefarm.client import farm as farm_module
from rakefarm.client.farm import Farm
from rakefarm.client.reach import HostFailed
from rakefarm.codes import Code
from rakefarm.config import ClientSettings
from rakefarm.embedded import Shares, embedded_server
from rakefarm.events import Stream
from rakefarm.hosts import Host

WELCOME = SimpleNamespace(
    slots=2, cores=2, software="x", isolation="none", authentication="key", missing=()
)  # what the farm reads of one
SLEEP_S = 10.0


class FakeLink:
    """All that the farm needs of one."""

    welcome = WELCOME
    transport = SimpleNamespace(connection=SimpleNamespace(take_count=lambda: 0))

    def close(self):
        """Nothing is open."""


def connected(place, *_):
    if place.name == "lab2":
        raise HostFailed("refused", Code.REFUSED)
    return FakeLink()


@pytest.mark.parametrize(("names", "waits"), [(("lab1",), False), (("lab2",), True), ((), True)])
def test_it_waits_for_this_machine_only_where_no_other_host_is_ready(monkeypatch, names, waits):
    monkeypatch.setattr(farm_module, "connect", connected)
    started, returned = threading.Event(), threading.Event()

    def wait_ready():
        started.wait(SLEEP_S)
        return Host("local", way="unix", path="/nowhere")

    hosts = [Host("local"), *[Host(name, 6238) for name in names]]
    farm = Farm(hosts, ClientSettings(insecure=True), {"HOME": "/nowhere"}, Stream("", []), wait_ready)
    thread = threading.Thread(target=lambda: (farm.start(SLEEP_S), returned.set()))
    thread.start()
    try:
        assert returned.wait(0.2 if waits else SLEEP_S / 2) is not waits
    finally:
        started.set()
        thread.join()
    assert returned.is_set()
    farm.close()


def test_an_embedded_server_that_still_starts_is_not_waited_for(monkeypatch):
    servers = []

    def start(_, variables, descriptors):
        servers.append(started(("sleep", str(SLEEP_S)), variables, descriptors))
        return servers[-1]

    started = embedded.start_background
    monkeypatch.setattr(embedded, "start_background", start)
    with embedded_server({}, Shares(1, "/nowhere")):
        pass
    assert servers[0].poll() is None
    servers[0].kill()
    servers[0].wait()
    servers[0].stdout.close()
