"""A result of an earlier run is taken only where it may be one, and only of a run that went well."""

from typing import Any

import pytest

from rakefarm.capture import Capture
from rakefarm.client import remote
from rakefarm.client.inputs import Manifest
from rakefarm.client.outputs import Incoming
from rakefarm.client.report import Outcome, Report
from rakefarm.wire import RemoteProtocolError
from rakefarm.wire.messages import Delivered, Execute, Result, Task

KEPT = Result("exited", 0, 5.0, 0.0, 4.0, 1, 5.0, "", 1)


class Served:
    """A link to a server that answers with these."""

    def __init__(self, *messages: object) -> None:
        self.messages = list(messages)
        self.sent: list[object] = []

    def execute(self, message: object) -> None:
        self.sent.append(message)

    def receive(self) -> object:
        return self.messages.pop(0)


def run(result: Result, repeatable: bool) -> tuple[remote.Executed, Served]:
    order = remote.Order(
        Task("other", (), 0, 0.0, 0), b"true", Manifest((), ()), None, None, (), "", repeatable=repeatable
    )
    link: Any = Served(result, Delivered(()))
    member: Any = None
    return remote.execute(order, member, link, Incoming(), Capture(), Capture(), lambda *_: None), link


def test_where_it_will_do_it_is_taken_and_its_time_is_not_ours() -> None:
    executed, link = run(KEPT, repeatable=True)
    assert isinstance(link.sent[0], Execute)
    assert link.sent[0].repeatable == 1
    report = Report(Outcome.SUCCEEDED)
    report.judge(executed.result)
    assert (report.ran_s, report.cpu_s, report.detail) == (0.0, 0.0, "exit status 0, of an earlier run")


@pytest.mark.parametrize(("result", "repeatable"), [
    (KEPT, False),
    (Result("exited", 1, 5.0, 0.0, 4.0, 1, 5.0, "", 1), True),
    (Result("signalled", 0, 5.0, 0.0, 4.0, 1, 5.0, "", 1), True),
])  # fmt: skip
def test_where_it_may_not_be_one_the_server_is_not_believed(result: Result, repeatable: bool) -> None:
    with pytest.raises(RemoteProtocolError, match="earlier run"):
        run(result, repeatable)
