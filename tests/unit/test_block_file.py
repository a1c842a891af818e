"""Lists of senders as text: the administrator's lines stay byte for byte, ours stand in a marked region."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.mta.address import parse_block_pattern
from fleet.mta.blocks.listfile import (
    Block,
    Syntax,
    checks,
    parse_file,
    plain_entries,
    render,
    value_by_hand,
    with_block,
    without_block,
)
from fleet.mta.errors import Conflict
from fleet.mta.qmail.blocks import lines_of
from fleet.mta.sendmail import access
from fleet.mta.text import short_digest

PLAIN = Syntax(plain_entries)
MAP = Syntax(access.entries, access.VALUE)
PATH = "/list"
REJECT = 'ERROR:5.7.1:"550 no"'


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
    ended = before if not before or not after or before.endswith("\n") else f"{before}\n"
    assert unblock(block(blocked, "c@d.test"), "a@b.test", "c@d.test") == ended + after


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
    assert text.startswith(f"x@y.test\n# BEGIN mxfleet (the line above had no end: {short_digest('x@y.test')})\n")
    assert unblock(text, "a@b.test") == "x@y.test"


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: f"{text}z@w.test\n",
        lambda text: f"{text}z@w.test",
        lambda text: text.replace("# BEGIN", "z@w.test\n# BEGIN"),
        lambda text: text.replace("x@y.test\n", "z@w.test\n"),
        lambda text: text.replace("x@y.test\n", ""),
        lambda text: text.replace("x@y.test\n", "x@y.test\r\n"),
        lambda text: re.sub(r": \w+\)", ")", text),  # as earlier versions wrote it
    ],
)
def test_an_added_line_end_stays_once_somebody_else_wrote(edit: Callable[[str], str]) -> None:
    text = edit(block("v@w.test\nx@y.test", "a@b.test"))
    others = [line for line in text.split("\n") if "mxfleet" not in line and line != "a@b.test"]
    for blocked in (text, block(text, "c@d.test")):
        assert (unblock(blocked, "a@b.test", "c@d.test") or "").split("\n") == others


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
        "# BEGIN mxfleet\n# mxfleet:j a@b.test\na@b.test\nforeign@b.test\n# END mxfleet\n",
        "# BEGIN mxfleet\n# mxfleet:j a@b.test\na@b.test\na@b.test\n# END mxfleet\n",
        "# BEGIN mxfleet\n# mxfleet:j a@b.test\nc@b.test\n# mxfleet:j c@b.test\n# END mxfleet\n",
        "# BEGIN mxfleet\n# mxfleet:j a@b.test\na@b.test\r\n# END mxfleet\n",
        "# BEGIN mxfleet\r\n# mxfleet:j a@b.test\r\na@b.test\r\n# END mxfleet\r\n",
        "# BEGIN mxfleet\n# END mxfleet\n# END mxfleet\n",
        "# END mxfleet\n# BEGIN mxfleet\n",
        "# BEGIN mxfleet\n# END mxfleet\n# mxfleet:j a@b.test\na@b.test\n",
        "# BEGIN mxfleet\n# END mxfleetz@w.test\n",
        "\ufeff# BEGIN mxfleet\n# END mxfleet\n",
    ],
)
def test_a_region_that_was_edited_by_hand_is_a_conflict(region: str) -> None:
    with pytest.raises(Conflict) as caught:
        parse_file(f"x@y.test\n{region}", PATH, PLAIN, plain_keys)
    assert f"{PATH} line {caught.value.data['line']}" in caught.value.detail
    assert caught.value.hint


def test_a_value_of_ours_that_somebody_made_his_own_is_a_conflict_that_names_the_line() -> None:
    text = "# BEGIN mxfleet\n# mxfleet:j x.test\nFrom:x.test\tOK\n# END mxfleet\n"
    with pytest.raises(Conflict, match="line 3"):
        parse_file(text, PATH, MAP, map_keys)


def test_a_last_mark_without_a_line_end_is_a_mark() -> None:
    assert unblock(block("x@y.test\n", "a@b.test").removesuffix("\n"), "a@b.test") == "x@y.test\n"


def test_a_block_whose_line_somebody_removed_is_no_block() -> None:
    text = block("", "a@b.test", "c@d.test").replace("\na@b.test\n", "\n")
    assert [each.pattern for each in parse_file(text, PATH, PLAIN, plain_keys).blocks] == ["c@d.test"]


def test_a_block_that_lacks_one_of_its_lines_is_known_for_that() -> None:
    two = Syntax(plain_entries, other_keys=lambda pattern: ("old.test",))
    text = "# BEGIN mxfleet\n# mxfleet:j x.test\nx.test\nold.test\n# END mxfleet\n"
    for keys, is_whole in ((("x.test",), True), (("x.test", ".x.test"), False)):
        file = parse_file(text, PATH, two, lambda pattern, keys=keys: keys)
        assert file.blocks == (Block("x.test", "j", "", is_whole),)


def test_the_administrators_line_is_named_in_the_conflict() -> None:
    file = parse_file("# one\nother@x.test\n  A@B.Test \r\n", PATH, PLAIN, plain_keys)
    with pytest.raises(Conflict) as caught:
        with_block(file, Block("a@b.test", "j", ""), plain_keys, PATH)
    assert caught.value.data["line"] == 3
    assert value_by_hand(file, plain_keys("a@b.test")) == ""
    assert value_by_hand(file, plain_keys("a@c.test")) is None


def test_two_patterns_of_one_key_are_written_once_and_live_on_their_own() -> None:
    file = parse_file("", PATH, MAP, map_keys)
    blocks = (Block("x.test", "j1", REJECT), Block(".x.test", "j2", REJECT))
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
    assert checks(file, (Block("new@x.test", "j", REJECT),), map_keys) == (
        ("from:new@x.test", REJECT),
        ("from:old@x.test", ""),
        ("to:d0.test", "RELAY"),
        ("to:d1.test", "RELAY"),
        ("to:d2.test", "RELAY"),
    )


def test_of_two_lines_with_one_key_the_map_must_give_the_first() -> None:
    his, ours = "From:x.test\tOK\n", Block("x.test", "j", REJECT)
    region = render(parse_file("", PATH, MAP, map_keys), (ours,), MAP, map_keys)
    for text, there, left in ((f"{his}{region}", "OK", "OK"), (f"{region}{his}", REJECT, "OK")):
        file = parse_file(text, PATH, MAP, map_keys)
        assert checks(file, (ours,), map_keys) == (("from:x.test", there),)
        assert checks(file, (), map_keys) == (("from:x.test", left),)
    odd = parse_file(f"{region}From:x.test\tcaf\u00e9\n", PATH, MAP, map_keys)
    assert checks(odd, (), map_keys) == ()
