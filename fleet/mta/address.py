"""Mail addresses and block patterns: accepted exactly as RFC 5321 allows them, or refused. Nothing is repaired.

Grammar: RFC 5321 4.1.2 (Mailbox, without address literals), RFC 6531 3.3 (UTF-8 in both parts), lengths: RFC 5321
4.5.3.1. Only the domain is normalised (IDNA 2008 A-labels in lower case); local parts differ as soon as a byte does.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import idna

from fleet.match.addresses import pasted

MAX_LOCAL = 64
MAX_DOMAIN = 255
MAX_MAILBOX = 254  # a path of 256 octets, less its angle brackets

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"')
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NEEDS_BACKSLASH = re.compile(r'(["\\])')
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class AddressError(ValueError):
    """Text that is no address or pattern. `code` as in the API (bad_pattern, too_broad, protected), `detail`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox. `local` without quoting, case kept; `domain` in A-labels, lower case."""

    local: str
    domain: str

    @property
    def smtp(self) -> str:
        """As it stands in MAIL FROM, the local part quoted only where it needs that."""
        return f"{quote_local(self.local)}@{self.domain}"

    @property
    def unicode_domain(self) -> str:
        """The domain in U-labels, the way an SMTPUTF8 client may send it."""
        return to_unicode(self.domain)


class PatternKind(StrEnum):
    ADDRESS = "address"
    DOMAIN = "domain"
    SUBDOMAINS = "subdomains"
    NULL_SENDER = "null_sender"


@dataclass(frozen=True, slots=True)
class BlockPattern:
    """Which senders: one address, a domain, a domain with its sub-domains, or the null sender.

    `domain` in A-labels without a leading dot; empty for the null sender. `address` only for one address.
    """

    kind: PatternKind
    domain: str = ""
    address: Address | None = None

    @property
    def text(self) -> str:
        """The canonical spelling: parses back to the same pattern."""
        if self.address is not None:
            return self.address.smtp
        if self.kind is PatternKind.NULL_SENDER:
            return "<>"
        return f".{self.domain}" if self.kind is PatternKind.SUBDOMAINS else self.domain


def quote_local(local: str) -> str:
    """A local part as RFC 5321 writes it: a dot-string where it is one, else a quoted string."""
    if _DOT_STRING.fullmatch(local):
        return local
    return '"' + _NEEDS_BACKSLASH.sub(r"\\\1", local) + '"'


def domain_of(address: str) -> str:
    """What stands behind the last @, in lower case; of a text without one all of it."""
    return address.rpartition("@")[2].lower()


def above(domain: str, dot: str = ".") -> Iterator[str]:
    """The domains above a domain, the nearest first, with `dot` before each."""
    while "." in domain:
        domain = domain.partition(".")[2]
        yield f"{dot}{domain}"


def to_unicode(domain: str) -> str:
    """A domain in U-labels; labels that are no valid A-labels stay as they are."""
    return ".".join(_unicode_label(label) for label in domain.split("."))


def _unicode_label(label: str) -> str:
    try:
        return idna.decode(label) if label.startswith("xn--") else label
    except idna.IDNAError:
        return label


def parse_address(text: str) -> Address:
    """`local@domain`, the local part a dot-string or a quoted string. Raises AddressError (bad_pattern)."""
    _refuse_hidden(text)
    if expected := pasted(text):
        raise AddressError("bad_pattern", f"{text!r} is no address; expected {expected}")
    local_text, domain_text = _split(text)
    address = Address(_unquote(local_text), parse_domain(domain_text))
    if len(quote_local(address.local).encode()) > MAX_LOCAL:
        raise AddressError("bad_pattern", f"the local part is longer than {MAX_LOCAL} octets (RFC 5321 4.5.3.1.1)")
    if len(address.smtp.encode()) > MAX_MAILBOX:
        raise AddressError("bad_pattern", f"the address is longer than {MAX_MAILBOX} octets (RFC 5321 4.5.3.1.3)")
    return address


def parse_domain(text: str) -> str:
    """A domain name as lower-case A-labels. Raises AddressError (bad_pattern)."""
    _refuse_hidden(text)
    if text.startswith("["):
        raise AddressError("bad_pattern", "an address literal in brackets is not supported; write a domain name")
    domain = text.lower() if text.isascii() else _to_ascii(text)
    if len(domain) > MAX_DOMAIN:
        raise AddressError("bad_pattern", f"the domain is longer than {MAX_DOMAIN} octets (RFC 5321 4.5.3.1.2)")
    for label in domain.split("."):
        if not _LABEL.fullmatch(label):
            raise AddressError("bad_pattern", f"{label!r} is no domain label (letters, digits, inner hyphens)")
    return domain


def parse_block_pattern(text: str) -> BlockPattern:
    """`user@domain`, `domain`, `.domain` (with sub-domains) or `<>` (the null sender).

    Raises AddressError: bad_pattern, `too_broad` (a top-level domain, every sender), `protected` (the mailboxes that
    bounces come from and that RFC 5321 4.5.1 wants to be reachable).
    """
    if text == "<>":
        return BlockPattern(PatternKind.NULL_SENDER)
    if text in ("@", ".", "*", "*@*", "*.*"):
        raise AddressError("too_broad", f"{text!r} would block every sender; name an address or a domain")
    if text.casefold() in ("mailer-daemon", "postmaster"):
        raise AddressError("protected", f"{text!r} is protected; the null sender is written <>")
    if "@" in text:
        return _address_pattern(text)
    kind = PatternKind.SUBDOMAINS if text.startswith(".") else PatternKind.DOMAIN
    domain = parse_domain(text.removeprefix("."))
    if "." not in domain:
        raise AddressError("too_broad", f"{text!r} is a top-level domain; name a domain below it")
    return BlockPattern(kind, domain)


def own_domain(pattern: BlockPattern, own: Iterable[str]) -> str:
    """Which of an MTA's own domains the block would refuse the users of: the pattern's domain, or one below it; or "".

    Single addresses of them may be blocked. Postfix takes a parent for its sub-domains too unless
    parent_domain_matches_subdomains (postconf(5)) was changed.
    """
    if pattern.address is not None or not pattern.domain:
        return ""
    return next((name for name in sorted(map(str.lower, own)) if f".{name}".endswith(f".{pattern.domain}")), "")


def remarks(pattern: BlockPattern) -> tuple[str, ...]:
    """What a person should know before approving this pattern: look-alike letters, characters that look like more."""
    notes = []
    if pattern.kind is PatternKind.NULL_SENDER:
        notes.append("bounces and notices of every server come with the null sender, and are refused too")
    if pattern.domain.startswith("xn--") or ".xn--" in pattern.domain:
        notes.append(f"{pattern.domain} is shown as {to_unicode(pattern.domain)}")
    local = pattern.address.local if pattern.address else ""
    scripts = _scripts(local + to_unicode(pattern.domain))
    if len(scripts) > 1:
        notes.append(f"letters of several scripts look alike here: {', '.join(scripts)}")
    if "*" in local:
        notes.append(f"* is a character of this address, not a wildcard; to block the domain write {pattern.domain}")
    return tuple(notes)


def _address_pattern(text: str) -> BlockPattern:
    if text.startswith("@"):
        raise AddressError("bad_pattern", f"{text!r} has no local part; to block the domain write it without the @")
    address = parse_address(text)
    if address.local.casefold() in ("postmaster", "mailer-daemon"):
        raise AddressError("protected", f"{address.smtp} is protected: reports come from it (RFC 5321 4.5.1)")
    return BlockPattern(PatternKind.ADDRESS, address.domain, address)


def _refuse_hidden(text: str) -> None:
    if not text:
        raise AddressError("bad_pattern", "an address must not be empty")
    if len(text) > 4 * MAX_MAILBOX:
        raise AddressError("bad_pattern", f"the address is longer than {MAX_MAILBOX} octets (RFC 5321 4.5.3.1.3)")
    if text != text.strip():
        raise AddressError("bad_pattern", "white space before or behind an address is not part of it; leave it out")
    for column, char in enumerate(text, 1):
        category = unicodedata.category(char)
        if category in _HIDDEN or (category == "Zs" and char != " "):
            raise AddressError("bad_pattern", f"invisible or control character U+{ord(char):04X} at column {column}")


def _split(text: str) -> tuple[str, str]:
    quoted = _QUOTED.match(text)
    local, at, domain = (quoted[0], *_after(text, quoted.end())) if quoted else text.rpartition("@")
    if not at or not local or not domain:
        raise AddressError("bad_pattern", f"{text!r} is no address; expected local@domain")
    return local, domain


def _after(text: str, end: int) -> tuple[str, str]:
    rest = text[end:]
    return (rest[:1], rest[1:]) if rest.startswith("@") else ("", rest)


def _unquote(local: str) -> str:
    if _QUOTED.fullmatch(local):
        return re.sub(r"\\(.)", r"\1", local[1:-1])
    if not _DOT_STRING.fullmatch(local):
        raise AddressError("bad_pattern", f"{local!r} is no local part; other characters than atoms need quotes")
    return local


def _to_ascii(text: str) -> str:
    try:
        return idna.encode(unicodedata.normalize("NFC", text), uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise AddressError("bad_pattern", f"{text!r} is no domain name: {error}") from error


def _scripts(text: str) -> list[str]:
    return sorted({unicodedata.name(char, "?").split()[0] for char in text if char.isalpha()})
