"""Addresses: accept and carry exactly, or refuse; never repair."""

import pytest

from fleet.mta.address import AddressError, PatternKind, own_domain, parse_address, parse_block_pattern, remarks

CARRIED_EXACTLY = [
    "o'brien@example.com",
    "user+tag=1@example.com",
    "a/b@x.org",
    "{x}@y.org",
    "!foo@example.com",
    "`id`@x.y",
    "#x@y.test",
    "-bd@x.test",
    "a%b!c=d+e@x.test",
    "a|b@x.test",
    "üser@example.com",
    '"quoted local"@example.com',
    '"a@b"@example.com',
    '"$(id)"@x.y',
    r'"a\"b\\c"@example.com',
    '"a..b"@example.com',
    '""@example.com',
    "a@localhost",
    "a@1.2.3.4",
    "*@example.com",
]

NO_ADDRESS = [
    "a@b;id",
    "$(id)@x.y",
    "a@b|nc",
    "a@b&&reboot",
    "\\'\";touch PWN;#",
    "a@b.c\nOK@x.y REJECT",
    "a@b.c\r\nBcc: z",
    " a@b.c",
    "a@b.c ",
    "\ta@b.c",
    "a@b.c\u0000.evil",
    "a\u0000@b.c",
    "a@b.c #x",
    "a@b.c\tOK",
    "a" * 65 + "@b.c",
    "a@" + ".".join(["b" * 63] * 4) + ".cc",
    "x" * 10_000,
    "a@b@c",
    "@b",
    "a@",
    "a",
    "",
    "a\u202eb@c.d",
    "a\u200bb@c.d",
    "a\u00adb@c.d",
    '"a\u00a0b"@c.d',
    "a@[127.0.0.1]",
    "a@[IPv6:::1]",
    "a..b@c.d",
    ".a@c.d",
    "a@-b.c",
    "a@b-.c",
    "a@b..c",
    "a@b.c.",
    "a@b_c.d",
    '"open@b.c',
    '"a"b@c.d',
    "a@" + "b" * 64 + ".c",
    "a@\u200b.com",
]


@pytest.mark.parametrize("text", CARRIED_EXACTLY)
def test_a_legal_address_is_carried_exactly(text: str) -> None:
    assert parse_address(text).smtp == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Joe" <joe@d.test>', "without angle brackets"),
        ("Joe <joe@d.test>", "without angle brackets"),
        ("mailto:joe@d.test", "without mailto:"),
        ("joe@d.test,", "without the ,"),
    ],
)
def test_what_is_pasted_around_an_address_is_named(text: str, expected: str) -> None:
    for parse in (parse_address, parse_block_pattern):
        with pytest.raises(AddressError, match=expected):
            parse(text)


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert caught.value.code == "bad_pattern"
    assert caught.value.detail


def test_an_address_longer_than_a_path_is_refused() -> None:
    domain = ".".join(["b" * 60] * 4)
    assert parse_address("a" * 10 + "@" + domain).domain == domain
    with pytest.raises(AddressError, match="254 octets"):
        parse_address("a" * 11 + "@" + domain)


def test_the_length_of_a_local_part_is_counted_in_octets() -> None:
    assert parse_address("ü" * 32 + "@b.c").local == "ü" * 32
    with pytest.raises(AddressError, match="64 octets"):
        parse_address("ü" * 33 + "@b.c")


def test_a_needless_quote_is_the_same_address() -> None:
    assert parse_address('"plain"@example.com') == parse_address("plain@example.com")


def test_only_the_domain_is_normalised() -> None:
    assert parse_address("UsEr@EXAMPLE.Com").smtp == "UsEr@example.com"
    assert parse_address("used@exämple.com") == parse_address("used@xn--exmple-cua.com")
    assert parse_address("a@exa\u0308mple.com") == parse_address("a@exämple.com")
    assert parse_address("u\u0308ser@example.com") != parse_address("üser@example.com")


def test_sharp_s_keeps_its_own_domain() -> None:
    """IDNA 2003 would turn it into strasse.de, which belongs to somebody else."""
    assert parse_address("a@straße.de").domain == "xn--strae-oqa.de"


def test_both_forms_of_a_domain_can_be_shown() -> None:
    assert parse_address("used@xn--exmple-cua.com").unicode_domain == "exämple.com"
    assert parse_address("used@xn--zzzzzz.com").unicode_domain == "xn--zzzzzz.com"


@pytest.mark.parametrize(
    ("text", "kind", "canonical"),
    [
        ("A@Example.com", PatternKind.ADDRESS, "A@example.com"),
        ("Example.com", PatternKind.DOMAIN, "example.com"),
        (".Example.com", PatternKind.SUBDOMAINS, ".example.com"),
        ("exämple.com", PatternKind.DOMAIN, "xn--exmple-cua.com"),
        ("<>", PatternKind.NULL_SENDER, "<>"),
        ('"a b"@x.test', PatternKind.ADDRESS, '"a b"@x.test'),
    ],
)
def test_a_block_pattern_has_one_spelling(text: str, kind: PatternKind, canonical: str) -> None:
    pattern = parse_block_pattern(text)
    assert (pattern.kind, pattern.text) == (kind, canonical)
    assert parse_block_pattern(pattern.text) == pattern


@pytest.mark.parametrize("text", ["*@*", "*", ".", "@", ".com", "com", "ALL", ".xn--p1ai"])
def test_a_pattern_for_everybody_is_too_broad(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_block_pattern(text)
    assert caught.value.code == "too_broad"


@pytest.mark.parametrize("text", ["MAILER-DAEMON", "postmaster", "Postmaster@example.com", '"mailer-daemon"@a.b'])
def test_the_senders_of_reports_are_protected(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_block_pattern(text)
    assert caught.value.code == "protected"


@pytest.mark.parametrize(
    ("pattern", "hit"),
    [
        ("mail.acme.example", "mail.acme.example"),
        (".mail.acme.example", "mail.acme.example"),
        ("acme.example", "mail.acme.example"),
        (".acme.example", "mail.acme.example"),
        ("ACME.example", "mail.acme.example"),
        ("me.example", ""),
        ("x.mail.acme.example", ""),
        ("a@mail.acme.example", ""),
        ("<>", ""),
    ],
)
def test_an_own_domain_is_hit_by_a_block_of_it_or_of_one_above_it(pattern: str, hit: str) -> None:
    assert own_domain(parse_block_pattern(pattern), ["other.example", "Mail.acme.example"]) == hit


@pytest.mark.parametrize(
    "text", ["@example.com", "user@", "..example.com", "example.com.", "", " example.com", "a b.c"]
)
def test_a_malformed_pattern_is_refused(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_block_pattern(text)
    assert caught.value.code == "bad_pattern"


def test_look_alike_letters_are_remarked() -> None:
    assert any("CYRILLIC, LATIN" in note for note in remarks(parse_block_pattern("p\u0430ypal.com")))
    assert any("not a wildcard" in note for note in remarks(parse_block_pattern("*@example.com")))
    assert remarks(parse_block_pattern("plain@example.com")) == ()
