"""Lists of senders as text: the administrator's lines stay byte for byte, ours stand in a marked region."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.mta.address import parse_block_pattern
from fleet.mta.block_file import (
    Block,
    Syntax,
    checks,
    parse_file,
    plain_entries,
    render,
    same_by_hand,
    with_block,
    without_block,
)
from fleet.mta.errors import Conflict
from fleet.mta.qmail.blocks import lines_of
from fleet.mta.sendmail import access

PLAIN = Syntax(plain_entries)
MAP = Syntax(access.entries, has_values=True)
PATH = "/list"


def plain_keys(pattern: str) -> tuple[str, ...]:
    return lines_of(parse_block_pattern(pattern))


def map_keys(pattern: str) -> tuple[str, ...]:
    return access.keys_of(parse_block_pattern(pattern))


def block(text: str, *patterns: str, exists: bool = True) -> str:
    """The text after blocking these, one after the other, each read again from the text."""
    for pattern in patterns:
        file = parse_file(text, PATH, PLAIN, plain_keys, exists=exists)
        changed = render(file, with_block(file, Block(pattern, "job-1", ""), plain_keys, PATH), PLAIN, plain_keys)
        assert changed is not None
        text, exists = changed, True
    return text


def unblock(text: str, *patterns: str) -> str | None:
    for pattern in patterns:
        file = parse_file(text, PATH, PLAIN, plain_keys)
        changed = render(file, without_block(file, pattern), PLAIN, plain_keys)
        if changed is None:
            return None
        text = changed
    return text


WRITTEN = st.text(st.sampled_from("ab@.#! \t\r\n\u00fc"), max_size=60)


@given(WRITTEN)
def test_the_last_unblock_gives_back_every_byte(text: str) -> None:
    blocked = block(text, "a@b.test", "b.test")
    assert blocked.startswith(text)
    assert unblock(blocked, "a@b.test", "b.test") == text
    assert unblock(blocked, "b.test", "a@b.test") == text


@given(WRITTEN, WRITTEN)
def test_lines_that_somebody_adds_stay_where_they_are(before: str, after: str) -> None:
    blocked = block(before, "a@b.test") + after
    assert unblock(block(blocked, "c@d.test"), "a@b.test", "c@d.test") == before + after


def test_a_file_that_was_not_there_goes_with_our_last_entry() -> None:
    text = block("", "a@b.test", exists=False)
    assert text == "# BEGIN mxfleet (there was no file)\n# mxfleet:job-1 a@b.test\na@b.test\n# END mxfleet\n"
    assert unblock(block(text, "c.test"), "a@b.test", "c.test") is None


def test_a_file_that_we_made_and_somebody_wrote_into_stays() -> None:
    text = block("", "a@b.test", exists=False) + "mine@x.test\n"
    assert unblock(text, "a@b.test") == "mine@x.test\n"


def test_an_empty_file_that_was_there_stays() -> None:
    assert unblock(block("", "a@b.test"), "a@b.test") == ""


def test_the_last_line_without_an_end_gets_one_for_as_long_as_ours_follow() -> None:
    text = block("x@y.test", "a@b.test")
    assert text.startswith("x@y.test\n# BEGIN mxfleet (the line above had no end)\n")
    assert unblock(text, "a@b.test") == "x@y.test"


@pytest.mark.parametrize(
    "region",
    [
        "# BEGIN mxfleet\n# mxfleet:j a@b.test\na@b.test\n",
        "# END mxfleet\n",
        "# BEGIN mxfleet\nforeign@b.test\n# END mxfleet\n",
        "# BEGIN mxfleet\n# mxfleet:j a@b.test\n# note\na@b.test\n# END mxfleet\n",
        "# BEGIN mxfleet\n# mxfleet:j no pattern\na@b.test\n# END mxfleet\n",
        "# BEGIN mxfleet\n# mxfleet:j a@b.test\na@b.test\tvalue\n# END mxfleet\n",
        "# BEGIN mxfleet\n# END mxfleet\n# BEGIN mxfleet\n# END mxfleet\n",
    ],
)
def test_a_region_that_was_edited_by_hand_is_a_conflict(region: str) -> None:
    with pytest.raises(Conflict):
        parse_file(f"x@y.test\n{region}", PATH, PLAIN, plain_keys)


def test_a_block_whose_line_somebody_removed_is_no_block() -> None:
    text = block("", "a@b.test", "c@d.test").replace("\na@b.test\n", "\n")
    assert [each.pattern for each in parse_file(text, PATH, PLAIN, plain_keys).blocks] == ["c@d.test"]


def test_the_administrators_line_is_named_in_the_conflict() -> None:
    file = parse_file("# one\nother@x.test\n  A@B.Test \r\n", PATH, PLAIN, plain_keys)
    with pytest.raises(Conflict) as caught:
        with_block(file, Block("a@b.test", "j", ""), plain_keys, PATH)
    assert caught.value.data["line"] == 3
    assert same_by_hand(file, plain_keys("a@b.test"), "")
    assert not same_by_hand(file, plain_keys("a@c.test"), "")


def test_two_patterns_of_one_key_are_written_once_and_live_on_their_own() -> None:
    file = parse_file("", PATH, MAP, map_keys)
    blocks = (Block("x.test", "j1", "REJECT"), Block(".x.test", "j2", "REJECT"))
    text = render(file, blocks, MAP, map_keys)
    assert text is not None
    assert text.count("From:x.test\t") == 1
    again = parse_file(text, PATH, MAP, map_keys)
    assert again.blocks == blocks
    left = render(again, without_block(again, "x.test"), MAP, map_keys)
    assert left is not None
    assert parse_file(left, PATH, MAP, map_keys).blocks == (blocks[1],)
    with pytest.raises(Conflict):
        with_block(again, Block("X.test", "j3", "DISCARD"), map_keys, PATH)


def test_the_new_map_is_asked_for_ours_for_the_removed_ones_and_for_three_others() -> None:
    lines = "".join(f"To:d{n}.test\tRELAY\n" for n in range(5))
    old = render(parse_file(lines, PATH, MAP, map_keys), (Block("Old@x.test", "j", "DISCARD"),), MAP, map_keys)
    assert old is not None
    file = parse_file(old, PATH, MAP, map_keys)
    assert checks(file, (Block("new@x.test", "j", "REJECT"),), map_keys) == (
        ("from:new@x.test", "REJECT"),
        ("from:old@x.test", ""),
        ("to:d0.test", "RELAY"),
        ("to:d1.test", "RELAY"),
        ("to:d2.test", "RELAY"),
    )
