"""Addresses as listings tell them: sent back they select that message and no other."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.match import Entry, MatchError, from_json, parse
from fleet.match.addresses import plainest
from fleet.mta.address import quote_local
from fleet.mta.records import QueueEntry, Recipient

DOMAINS = st.sampled_from(["d.test", "D.TEST", "müller.test", "xn--mller-kva.test", "sub.d.test"])
LOCALS = st.one_of(
    st.text('ab\\*?"@ .<>xE9/-', min_size=1, max_size=8).map(quote_local),
    st.text("ab.*?+xE9", min_size=1, max_size=6).map(quote_local),
    st.sampled_from(
        [r"caf\xE9", r'"caf\\xE9"', r'"a b\xE9"', '"a bxE9"', r'"back\\slash"', "backslash", "\u202eevil", "größe"]
    ),
)
ADDRESSES = st.one_of(st.builds("{}@{}".format, LOCALS, DOMAINS), st.just("<>"), LOCALS)


def queued(sender: str, to: str = "r@d.test") -> Entry:
    return QueueEntry("A1", "deferred", "deferred", 0.0, sender, (Recipient(to, "later", "deferred"),), 300)


def takes(match: dict[str, Any] | str, entry: Entry) -> bool | None:
    expression = parse(match) if isinstance(match, str) else from_json(match)
    return expression.compile(0.0)(entry)


def is_taken_as_told(address: str) -> bool:
    """Whether it may be a value at all; what is pasted around an address is refused by name."""
    try:
        from_json({"field": "from", "op": "is", "value": address})
    except MatchError:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(ADDRESSES.filter(is_taken_as_told), min_size=1, max_size=8), st.data())
def test_what_a_listing_tells_selects_that_mailbox_and_no_other(addresses: list[str], data: st.DataObject) -> None:
    told = data.draw(st.sampled_from(addresses))
    for field in ("from", "to"):
        entries = {each: queued(each) if field == "from" else queued("s@d.test", each) for each in addresses}
        form = from_json({"field": field, "op": "is", "value": told})
        for match in ({"field": field, "op": "is", "value": told}, form.render(), form.to_json()):
            chosen = {each for each, entry in entries.items() if takes(match, entry)}
            assert told in chosen
            assert {plainest(each.lower()) for each in chosen} == {plainest(told.lower())}, match


@pytest.mark.parametrize(
    ("told", "other"),
    [
        (r'"back\\slash"@d.test', "backslash@d.test"),
        (r'"caf\\xE9"@d.test', r"caf\xE9@d.test"),
        (r"caf\xE9@d.test", r'"caf\\xE9"@d.test'),
        (r'"a b\xE9"@d.test', '"a bxE9"@d.test'),
        ("a*b@d.test", "axxb@d.test"),
        ("a?b@d.test", "axb@d.test"),
        (r'"a\\*"@d.test', r'"a\\bcd"@d.test'),
        ("*", "anyone@d.test"),
    ],
)
def test_a_value_of_is_takes_nobody_elses_mail(told: str, other: str) -> None:
    form = {"field": "from", "op": "is", "value": told}
    assert (takes(form, queued(told)), takes(form, queued(other))) == (True, False)
    assert takes(from_json(form).render(), queued(other)) is False


def test_wildcards_of_the_json_form_are_in_glob() -> None:
    glob = {"field": "to", "op": "glob", "value": "*@d.test"}
    assert takes(glob, queued("s@x.test"))
    assert from_json(glob).to_json() == glob
    assert parse("to:*@d.test").to_json() == glob
    assert from_json(glob) == parse("to:*@d.test")


@pytest.mark.parametrize(
    ("pasted", "why"),
    [
        ("Joe <joe@d.test>", "angle brackets"),
        ("<joe@d.test>", "angle brackets"),
        ("mailto:joe@d.test", "mailto:"),
        ("joe@d.test,", "the , behind it"),
        ("joe@d.test;", "the ; behind it"),
        ("Joe Smith", "quoted local part"),
        ("joe smith@d.test", "quoted local part"),
        ("joe@d.test ann@d.test", "quoted local part"),
        ("'joe@d.test'", "the ' around it"),
        (" joe@d.test", "blanks around it"),
        ("Joe <*@d.test>", "angle brackets"),
        ("mailto:*@d.test", "mailto:"),
        ("*@d.test;", "the ; behind it"),
    ],
)
def test_what_is_pasted_around_an_address_is_refused_and_never_looked_for(pasted: str, why: str) -> None:
    for match in ({"field": "from", "op": "glob", "value": pasted}, f'from:"{pasted}"'):
        with pytest.raises(MatchError, match=why):
            takes(match, queued(pasted))


def test_invisible_characters_are_for_those_who_mark_them_off() -> None:
    with pytest.raises(MatchError, match="invisible"):
        parse("from:joe\u200b@d.test")
    assert takes('from:"joe\u200b@d.test"', queued("joe\u200b@d.test"))
    assert not takes('from:"joe\u200b@d.test"', queued("joe@d.test"))
