"""One function makes what leaves for a log or a terminal visible."""

from __future__ import annotations

import json

import pytest

from ptslink.escape import visible
from support.hostile import HOSTILE, acted_upon


def test_every_character_that_is_acted_upon_is_shown() -> None:
    # The planes beyond the second hold nothing that is acted upon, and take long to look at.
    every = "".join(map(chr, range(0x20000)))
    left = visible(every)
    assert acted_upon(left, keep="") == []
    assert len(left) == len(every) + 5 * len(acted_upon(every, keep=""))


@pytest.mark.parametrize("text", ["", "AI-95 Ünïcode, 燃料 🛢", 'a "quote" and a \\ backslash'])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_in_one_line_stays_the_same_json(text: str) -> None:
    for ascii_only in (True, False):
        line = json.dumps({text: [text]}, ensure_ascii=ascii_only)
        assert json.loads(visible(line)) == {text: [text]}


def test_what_a_sink_needs_is_kept() -> None:
    assert visible("a\tb\nc\x1b", keep="\n") == "a\\u0009b\nc\\u001b"
