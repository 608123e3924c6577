"""Host lists: what is understood, what is refused, and that nothing else ever escapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.hosts import Host, HostSyntaxError, parse_host, parse_host_list, with_default_port


@pytest.mark.parametrize(
    ("text", "host", "address"),
    [
        ("lab1", Host("lab1"), "lab1"),
        ("  lab1\n", Host("lab1"), "lab1"),
        ("lab1:6238", Host("lab1", 6238), "lab1:6238"),
        ("lab1:1", Host("lab1", 1), "lab1:1"),
        ("lab1:065535", Host("lab1", 65535), "lab1:65535"),
        ("lab1/4", Host("lab1", None, 4), "lab1"),
        ("lab1:6333/4096", Host("lab1", 6333, 4096), "lab1:6333"),
        ("a-b.lab_1.example.org.", Host("a-b.lab_1.example.org."), "a-b.lab_1.example.org."),
        ("münchen.example", Host("münchen.example"), "münchen.example"),
        ("192.0.2.7", Host("192.0.2.7"), "192.0.2.7"),
        ("192.0.2.7:80/2", Host("192.0.2.7", 80, 2), "192.0.2.7:80"),
        ("[::1]", Host("::1"), "[::1]"),
        ("unix:/run/farm", Host("unix:/run/farm", way="unix", path="/run/farm"), "unix:/run/farm"),
        ("ssh://lab1", Host("lab1", way="ssh"), "ssh://lab1"),
        ("ssh://zoe@lab1:7/3", Host("zoe@lab1", 7, 3, way="ssh"), "ssh://zoe@lab1:7"),
        ("ssh://zoe@[::1]:7", Host("zoe@::1", 7, way="ssh"), "ssh://zoe@[::1]:7"),
        ("[::1]:6333", Host("::1", 6333), "[::1]:6333"),
        ("[fe80::1%eth0]:6333/2", Host("fe80::1%eth0", 6333, 2), "[fe80::1%eth0]:6333"),
        ("[::ffff:192.0.2.7]/3", Host("::ffff:192.0.2.7", None, 3), "[::ffff:192.0.2.7]"),
    ],
)
def test_an_entry_is_understood(text: str, host: Host, address: str) -> None:
    assert parse_host(text) == host
    assert host.address == address


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty host entry"),
        ("a b", "more than one entry"),
        ("a,b", "more than one entry"),
        ("lab1:", "port"),
        ("lab1:x", "port"),
        ("lab1:0", "port"),
        ("lab1:65536", "port"),
        ("lab1:-1", "port"),
        ("lab1:1_0", "port"),
        ("lab1:١", "port"),
        ("lab1:" + "9" * 5000, "port"),
        ("lab1/", "slots"),
        ("lab1/0", "slots"),
        ("lab1/4097", "slots"),
        ("lab1/x", "slots"),
        (":6238", "names no host"),
        ("/4", "names no host"),
        ("6238", "is a number"),
        ("::1", r"needs brackets: \[::1\], or \[::1\]:6238"),
        ("2001:db8::7/4", r"needs brackets: \[2001:db8::7\]/4"),
        ("a:b:c", "not a host entry"),
        ("[]", "no IPv6 address"),
        ("[lab1]:80", "no IPv6 address"),
        ("[::1", "not a host entry"),
        ("[::1]x", "not a host entry"),
        ("999.1.1.1", "not an IPv4 address"),
        ("1.2.3", "not an IPv4 address"),
        ("-lab", "not a host name"),
        ("lab..org", "not a host name"),
        ("a" * 64, "not a host name"),
        (".".join(["a" * 60] * 5), "not a host name"),
        ("ü" * 63, "not a host name"),
        ("user@lab", "not a host name"),
        ("unix:relative", "full path"),
        ("unix:", "full path"),
        ("ssh://", "empty"),
        ("ssh://-oProxyCommand=x", "not a host name"),
        ("ssh://-l@lab1", "no user's name"),
        ("ssh://@lab1", "no user's name"),
        ("ssh://a;b@lab1", "no user's name"),
        ("ssh://unix:/x", "no host for ssh"),
        ("ssh://ssh://lab1", "no host for ssh"),
        ("lab\udcff", "not a host name"),
        ("lab\x00", "not a host name"),
    ],
)
def test_a_wrong_entry_is_one_clear_line(text: str, complaint: str) -> None:
    with pytest.raises(HostSyntaxError, match=complaint) as caught:
        parse_host(text)
    message = str(caught.value)
    assert message.isprintable()
    assert "[::1]" in message or "brackets" in message
    assert len(message) < 250


def test_a_list_is_separated_by_commas_blanks_and_newlines() -> None:
    assert parse_host_list("a, b:1\tc\n[::1]:2,,d/3\r\n") == (
        Host("a"),
        Host("b", 1),
        Host("c"),
        Host("::1", 2),
        Host("d", None, 3),
    )


def test_comments_end_with_their_line_and_exact_repetitions_collapse() -> None:
    text = "# the lab\nb a # both, new\nb:1#again\nb a:1"
    assert parse_host_list(text) == (Host("b"), Host("a"), Host("b", 1), Host("a", 1))


@pytest.mark.parametrize("text", ["", " ,\n", "# nothing"])
def test_a_list_may_be_empty(text: str) -> None:
    assert parse_host_list(text) == ()


def test_a_default_port_never_replaces_one() -> None:
    assert with_default_port(Host("a", None, 2), 6238) == Host("a", 6238, 2)
    assert with_default_port(Host("a", 1), 6238) == Host("a", 1)


@given(st.text() | st.text(alphabet="ab1.:/[]%, #-\n", max_size=30))
def test_any_text_is_a_list_or_a_host_syntax_error(text: str) -> None:
    try:
        hosts = parse_host_list(text)
    except HostSyntaxError as error:
        assert str(error).isprintable()
        return
    for host in hosts:
        assert parse_host(host.address) == Host(host.name, host.port)
        host.name.encode("idna")  # what the resolver will do first
