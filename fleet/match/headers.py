"""Header values as people read them: RFC 2047 encoded words decoded, garbage left as it is. Never raises."""

import binascii
import re

from fleet.match.charsets import codec_of

# Only our own constant patterns run in Python's re; both are linear.
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,80})\?([bBqQ])\?([^?\n]*)\?=")
_CUT = 64 << 10
# Codecs that Python has and mail has not: slow (quadratic) or no charset at all.
_NO_CHARSETS = frozenset(
    {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7", "mbcs", "oem"}
)


def decode(raw: str) -> str:
    """A raw unfolded value, up to 64 KiB of it, with its encoded words decoded (RFC 2047 6.2).

    White space between two encoded words belongs to neither. An encoded word with an unknown charset, or whose bytes do
    not decode, stays as it was written. Bytes kept by `surrogateescape` are read as UTF-8.
    """
    text = _mended(raw[:_CUT])
    if "=?" not in text:
        return text
    parts: list[str] = []
    pending: tuple[str, bytes, str] | None = None  # charset, bytes, as written
    last = 0
    for word in _ENCODED_WORD.finditer(text):
        between = text[last : word.start()]
        last = word.end()
        decoded = _word(word)
        if pending and decoded and not between.strip() and pending[0] == decoded[0]:
            # A character may be cut in two by the limit of 75 characters per word.
            pending = (pending[0], pending[1] + decoded[1], pending[2] + between + decoded[2])
            continue
        parts.append(_text(pending))
        if not (pending and decoded and not between.strip()):
            parts.append(between)
        pending = decoded
        if decoded is None:
            parts.append(word.group())
    parts.extend((_text(pending), text[last:]))
    return "".join(parts)


def _word(word: re.Match[str]) -> tuple[str, bytes, str] | None:
    charset = codec_of(word[1].partition("*")[0])  # RFC 2231 5: a language may follow
    if charset in _NO_CHARSETS:
        return None
    try:
        data = word[3].encode("ascii")
        if word[2] in "bB":
            data = binascii.a2b_base64(data + b"=" * (-len(data) % 4))
        else:
            data = binascii.a2b_qp(data, header=True)
        data.decode(charset, "replace")
    except (ValueError, LookupError):
        return None
    return charset, data, word.group()


def _text(pending: tuple[str, bytes, str] | None) -> str:
    if pending is None:
        return ""
    charset, data, written = pending
    try:
        return data.decode(charset)
    except (ValueError, LookupError):
        return written


def _mended(raw: str) -> str:
    if raw.isascii():
        return raw
    return raw.encode("utf-8", "surrogateescape" if _only_escapes(raw) else "replace").decode("utf-8", "replace")


def _only_escapes(raw: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" and not "\udc80" <= char <= "\udcff" for char in raw)
