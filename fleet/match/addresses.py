"""Addresses and domains: which spellings name the same mailbox.

Case never counts. A quoted local part is what it quotes (RFC 5321 4.1.2), an A-label is its U-label (RFC 5890). Unicode
is normalised (NFC) in the domain only: two local parts that look alike may be two mailboxes.
"""

import unicodedata
from functools import lru_cache

NULL_SENDER = "<>"


def pasted(text: str) -> str:
    """What stands around an address, or a pattern of addresses, as people paste it, and what to write; "" where it is
    bare. Looked for as it stands it would find nothing."""
    if text != text.strip():
        return "an address without blanks around it"
    if text != NULL_SENDER and text.endswith(">") and "<" in text:
        return f"an address without angle brackets and name ({NULL_SENDER} is the null sender)"
    if text.lower().startswith("mailto:"):
        return "an address without mailto:"
    if text.endswith((",", ";")):
        return f"one address, without the {text[-1]} behind it"
    if text[:1] == text[-1:] == "'" and "@" in text:
        return "an address without the ' around it"
    return ""


def is_plain(lowered: str) -> bool:
    """No other spelling exists, which holds for nearly every address: the fast path."""
    return lowered.isascii() and '"' not in lowered and "xn--" not in lowered


@lru_cache(maxsize=4096)
def spellings(lowered: str) -> tuple[str, ...]:
    """The address as listed, then its plainest form when that is another text."""
    plain = plainest(lowered)
    return (lowered,) if plain == lowered else (lowered, plain)


def plainest(lowered: str) -> str:
    """Local part without its quotes, domain in Unicode."""
    local, at, domain = lowered.rpartition("@")
    if not at:
        return lowered
    return unquoted(local) + at + unicode_domain(domain)


def unquoted(local: str) -> str:
    r"""The local part that a quoted string stands for. One with a backslash stays as it is listed.

    Without its quotes `"a\\xE9"` would read as `a\xE9`, which is how a byte that is no UTF-8 is listed, and `"a\xE9"`,
    a byte in quotes, as `axE9`: other people's addresses.
    """
    if len(local) < 2 or local[0] != '"' or local[-1] != '"':
        return local
    inner = local[1:-1].replace('\\"', '"')
    return local if "\\" in inner else inner


def unicode_domain(domain: str) -> str:
    """A domain with every A-label decoded. A label that is no valid punycode stays as it is."""
    if "xn--" not in domain and domain.isascii():
        return domain
    return unicodedata.normalize("NFC", ".".join(_unicode_label(label) for label in domain.split("."))).lower()


def domain_of(address: str) -> str:
    """The part behind the last @; nothing for the null sender and for a local name."""
    return address.rpartition("@")[2] if "@" in address else ""


def _unicode_label(label: str) -> str:
    if not label.startswith("xn--") or len(label) > 63:
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except ValueError:
        return label
