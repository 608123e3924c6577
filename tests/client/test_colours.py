"""Colours of compilers stay on a terminal and go elsewhere; nothing else is changed."""

import io

import pytest

from rakefarm.client.view import open_view
from rakefarm.events import ActionFinished, ActionOutput

GCC = b"\x1b[01m\x1b[Kx.c:1:1:\x1b[m\x1b[K \x1b[01;31m\x1b[Kerror: \x1b[m\x1b[Kno \x1b]0;title\x07"


def shown(*pieces, color="auto", stdout=b""):
    out, err = io.BytesIO(), io.BytesIO()
    with open_view("plain", color, 0, None, {}, out, err) as view:
        view(ActionOutput(action=1, stdout=stdout))
        for piece in pieces:
            view(ActionOutput(action=1, stderr=piece))
        view(ActionFinished(action=1, host="lab1:6238", outcome="succeeded"))
    return out.getvalue(), err.getvalue()


def test_in_a_file_they_go_from_standard_error_only():
    assert shown(GCC, stdout=GCC) == (GCC, b"x.c:1:1: error: no \x1b]0;title\x07")


def test_where_colour_is_wanted_they_stay():
    assert shown(GCC, color="always") == (b"", GCC)


@pytest.mark.parametrize("cut", range(1, len(GCC)))
def test_one_that_is_cut_between_two_pieces_goes_too(cut):
    assert shown(GCC[:cut], GCC[cut:])[1] == shown(GCC)[1]


@pytest.mark.parametrize("rest", [b"\x1b", b"\x1b[", b"\x1b[01;3", b"\x1b[1" + b"2" * 100])
def test_what_only_looks_like_the_beginning_of_one_is_not_lost(rest):
    assert shown(b"text" + rest)[1] == b"text" + rest
