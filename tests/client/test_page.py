"""`--report`: one page that needs nothing else, whatever commands, hosts and compilers say; driven in a real browser."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium_vocabulary import CHROMIUM, Browser, open_browser
from story_vocabulary import LAB1, LAB2, StoppedClock, story_of_a_build, tell

from rakefarm import events
from rakefarm.client.page import LISTED, Page
from rakefarm.client.plain import ViewError
from rakefarm.client.story import Stories
from rakefarm.client.timeline import bars_of, critical_path
from rakefarm.events import (
    ActionFinished,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    BuildFinished,
    BuildStarted,
    SetStarted,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock()
    monkeypatch.setattr(events, "time", clock)
    return clock


@pytest.fixture
def path(clock: StoppedClock, tmp_path: Path) -> Path:
    """The report of the build."""
    return write_report(clock, tmp_path / "report.html")


def write_report(clock: StoppedClock, path: Path, until: int | None = None) -> Path:
    page = Page(str(path))
    tell(clock, [page], until=until)
    assert not path.exists()
    page.close()
    page.close()
    return path


class Elements(HTMLParser):
    """What a browser would make of the page: its elements with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_hostile_texts_stay_texts(path: Path) -> None:
    page = Elements(path)
    assert (page.count("script"), page.count("b")) == (1, 0)
    assert "cc -c '</script><script>alert(1)</script>' \"&quot;\" \\x1b[2J \\udcff ü.c" in page.text
    assert "no such </pre><b>file" in page.text and "\x1b" not in page.text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_it_needs_nothing_else(path: Path) -> None:
    page = Elements(path)
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "embed", "base")]
    assert {href for _, attributes in page.tags if (href := attributes.get("href"))} == {"#actions-title"}
    assert not re.search(r"(?:https?:)?//[a-z]|url\(|@import", path.read_text("utf-8").replace("http-equiv", ""))


def test_it_says_what_there_was(path: Path) -> None:
    text = " ".join(Elements(path).text.split())
    for part in (
        "failed: 3 actions, 1 failed, 1 not started in 2.8 s",
        "2 remote, 1 fell back to this machine; 1 retried, 1 refused by a full host",
        "left out: connection reset",
        "base 1 + memory 0.25",
        f"{LAB2} at 1.50",
        "rakefarm 0, 2 cores",
        "warning: odd",
        "exit status 1",
    ):
        assert part in text, part


def test_the_critical_path_goes_back_through_whatever_was_waited_for(clock: StoppedClock) -> None:
    stories = Stories()
    told = tell(clock, [stories.apply])
    bars = bars_of(stories, told[-1].time_s)
    assert [(bar.story.action, bar.placement.host, bar.lane) for bar in bars] == [
        (1, LAB1, 0), (2, LAB2, 0), (2, LAB1, 1), (3, LAB2, 0), (3, "local", 0),
    ]  # fmt: skip
    steps = critical_path(stories, bars)
    assert [(step.bar.story.action, step.bar.placement.host) for step in steps] == [(2, LAB2), (2, LAB1)]
    assert steps[0].waited_s == pytest.approx(0.3)


@pytest.mark.parametrize("until", range(1, len(list(story_of_a_build())), 5))
def test_a_build_that_was_cut_has_a_report_too(clock: StoppedClock, tmp_path: Path, until: int) -> None:
    assert "no end of it was told" in Elements(write_report(clock, tmp_path / "r.html", until)).text


def test_without_jinja_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from rakefarm import cli\n"
        f"sys.exit(cli.build_main(['--report', {str(tmp_path / 'r.html')!r}, {str(tmp_path / 'Rakefile')!r}]))"
    )
    (tmp_path / "Rakefile").write_text("a:\n\ttrue\n")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "pip install jinja2" in ended.stderr


def test_a_report_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="for --report: it is no file"):
        Page(str(tmp_path))


MANY = 10_000


@pytest.fixture
def large(clock: StoppedClock, tmp_path: Path) -> Path:
    """The report of a large build: 8 places, one failure."""
    page = Page(str(tmp_path / "large.html"))
    stream = events.Stream("0123456789abcdef", [page])
    stream.emit(BuildStarted(rakefile="R", actions=MANY, sets=1, hosts=(LAB1, LAB2), policy="plan", cores=2))
    stream.emit(SetStarted(index=0, set_name="all", actions=MANY))
    for action in range(1, MANY + 1):
        command = f"cc -c '</script>part{action - 1}.c'"
        stream.emit(ActionQueued(action=action, set_name="all", line=action, command=command, remote=True))
    for first in range(1, MANY + 1, 8):
        group = range(first, min(first + 8, MANY + 1))
        for action in group:
            host = (LAB1, LAB2)[action % 2]
            stream.emit(
                ActionPlaced(action=action, host=host, price=0.1, seconds=0.1, runner_up=LAB1, runner_up_price=0.2)
            )
            stream.emit(ActionPhase(action=action, host=host, phase="running"))
        clock.now_s += 0.1
        for action in group:
            outcome = "failed" if action == 5000 else "succeeded"
            stream.emit(ActionFinished(action=action, host=(LAB1, LAB2)[action % 2], outcome=outcome, ran_s=0.1))
    stream.emit(
        BuildFinished(exit_status=1, succeeded=MANY - 1, failed=1, not_started=0, elapsed_s=clock.now_s - 100.0)
    )
    page.close()
    return tmp_path / "large.html"


def test_a_large_build_makes_no_large_page(large: Path) -> None:
    page = Elements(large)
    assert large.stat().st_size < 2e6
    assert page.count("tr") < LISTED + 400 and page.count("g") < 2100
    assert sum(attributes.get("class") == "bar failed" for _, attributes in page.tags) == 1, "which is drawn alone"
    drawn = [attributes for tag, attributes in page.tags if tag == "g"]
    of_all = " ".join(str(each.get("data-actions") or each["data-action"]) for each in drawn)
    assert sorted(map(int, of_all.split())) == list(range(1, MANY + 1))
    (rest,) = re.findall(r'<script type="application/json" id="rest">(.*?)</script>', large.read_text("utf-8"))
    rows = json.loads(rest)
    assert [row[0] for row in rows] == list(range(LISTED + 1, MANY + 1)) and {len(row) for row in rows} == {13}
    assert rows[-1][3] == f"cc -c '</script>part{MANY - 1}.c'"


# --- in a browser -----------------------------------------------------------------------------------------

in_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here (Debian: apt install chromium)"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser that must have had nothing to complain of."""
    with open_browser(tmp_path / "profile") as opened:
        yield opened
        assert opened.complaints == []


def shown_rows(browser: Browser) -> list[str]:
    visible = (
        "[...document.querySelectorAll('#actions tbody tr')].filter(r => r.offsetHeight).map(r => r.dataset.action)"
    )
    found = browser.evaluate(visible)
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desk"])
class TestInABrowser:
    pytestmark = in_a_browser

    def test_filter_hover_and_table(self, browser: Browser, path: Path, width: int, dark: bool) -> None:
        browser.show(path, width, dark=dark)
        assert shown_rows(browser) == ["1", "2", "3"]
        browser.type_into("#filter", "ALERT(1)")
        assert shown_rows(browser) == ["3"] and browser.evaluate("count.value") == "1 of 3 shown"
        out = "[...document.querySelectorAll('.bar.out')].map(b => b.dataset.action)"
        assert set(browser.evaluate(out)) == {"1", "2"}
        browser.type_into("#filter", "")
        change = "host.value = {!r}; host.dispatchEvent(new Event('input'))"
        browser.evaluate(change.format(LAB1))
        assert shown_rows(browser) == ["1", "2"]
        browser.evaluate(change.format(""))

        assert browser.evaluate("tip.hidden") is True
        browser.move_to(".bar[data-action='2'].succeeded")
        said = browser.evaluate("tip.innerText")
        assert "2, set compile, line 12: cc -c b.c" in said and f"{LAB1} 2: succeeded" in said and "took 2.00 s" in said
        assert browser.evaluate("document.getElementById('action-2').classList.contains('shown')") is True
        box = browser.evaluate("(b => [b.left, b.right])(tip.getBoundingClientRect())")
        assert box[0] >= 0 and box[1] <= width
        browser.move_to("h1")
        assert browser.evaluate("tip.hidden") is True

    def test_ten_thousand_actions_are_light(self, browser: Browser, large: Path, width: int, dark: bool) -> None:
        browser.show(large, width, dark=dark)
        assert browser.evaluate("document.querySelectorAll('*').length") < 15_000
        assert browser.evaluate("count.value") == f"{MANY} of {MANY} shown, the first {LISTED} listed"
        began = time.monotonic()
        browser.type_into("#filter", f"part{MANY - 1}.c")
        assert shown_rows(browser) == [str(MANY)] and browser.evaluate("count.value") == f"1 of {MANY} shown"
        assert time.monotonic() - began < 5.0
        row = browser.evaluate(f"document.getElementById('action-{MANY}').innerText")
        begin = [str(MANY), "all", str(MANY), "cc", "-c", f"'</script>part{MANY - 1}.c'", LAB1, "4", "succeeded"]
        assert row.split()[: len(begin)] == begin
        browser.type_into("#filter", "")
        browser.move_to(".bar[data-actions]")
        assert "short actions, the first:" in browser.evaluate("tip.innerText")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width

    def test_it_can_be_read(self, browser: Browser, path: Path, width: int, dark: bool) -> None:
        browser.show(path, width, dark=dark)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, "only tables scroll sideways"
        paper, ink = browser.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
        light = [sum(map(int, re.findall(r"\d+", colour)[:3])) > 384 for colour in (paper, ink)]
        assert light == [not dark, dark]
        assert browser.evaluate("document.querySelectorAll('figure[aria-labelledby] .bar').length") == 5
        assert browser.evaluate("[...document.querySelectorAll('th')].every(th => th.scope)") is True
