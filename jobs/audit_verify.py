"""The audit chain's arithmetic, and a verifier that works offline: `python -m jobs.audit_verify EXPORT --pub KEYS`.

PURE but for `main`: no Django, no database. An export has one JSON object per line, chain after chain: `event` lines in
the order of `seq`, each `checkpoint` right after the entry that it signs, and the `head` last.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Line = dict[str, Any]
PREFIX = b"mxfleet-audit-v1\n"
EVENT = ("chain", "seq", "at", "actor", "on_behalf_of", "channel", "source", "action", "object", "job", "data")
SAFE = 2**53


def canonical(value: Any) -> str:
    """RFC 8785 JSON. Integers within 2^53 and finite floats only. Raises ValueError, TypeError."""
    match value:
        case None | bool():
            return json.dumps(value)
        case str():
            return json.dumps(str(value), ensure_ascii=False)
        case int() | float():
            return _number(value)
        case list() | tuple():
            return "[" + ",".join(map(canonical, value)) + "]"
        case dict():
            keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
            return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    raise TypeError(f"{type(value).__name__} is no JSON type")


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")) or value != value or (value == int(value) and abs(value) > SAFE):
        raise ValueError(f"{value} is not finite, or an integer beyond 2^53")
    if value == int(value):
        return str(int(value))
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        return mantissa
    # ECMAScript writes exponents below -6 only, and without a leading zero.
    return format(Decimal(repr(value)), "f") if int(exponent) >= -6 else f"{mantissa}e{int(exponent)}"


def event_hash(prev_hash: str, event: Line) -> str:
    """SHA-256 over the format's name, the entry before and this one, as hexadecimal digits."""
    body = canonical({name: event[name] for name in EVENT})
    return hashlib.sha256(PREFIX + prev_hash.encode() + body.encode()).hexdigest()


def checkpoint_text(line: Line) -> bytes:
    """What a checkpoint's signature is over."""
    return canonical({name: line[name] for name in ("chain", "seq", "hash", "at")}).encode()


def is_signed(line: Line, keys: dict[str, bytes]) -> bool:
    """Whether the signature `KEYID:BASE64` is by one of the Ed25519 public keys."""
    key_id, _, signature = line["signature"].partition(":")
    try:
        Ed25519PublicKey.from_public_bytes(keys[key_id]).verify(base64.b64decode(signature), checkpoint_text(line))
    except (KeyError, InvalidSignature, binascii.Error):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Bad:
    """The first entry that is not as it was written."""

    chain: str
    seq: int
    reason: str


@dataclass(slots=True)
class Verdict:
    """`checked`: good entries. `unsigned`: those after the last checkpoint, which a full rewrite could have made."""

    ok: bool = True
    checked: int = 0
    unsigned: int = 0
    first_bad: Bad | None = None


@dataclass(slots=True)
class Chain:
    """How far one chain has been followed. The methods give the reason why a line is bad, or nothing."""

    name: str
    seq: int = 0
    hash: str = ""
    signed: int = 0
    has_head: bool = False
    kept: dict[int, str] = field(default_factory=dict)

    def event(self, line: Line) -> str:
        if line["seq"] != self.seq + 1:
            return f"entry {self.seq + 1} is missing or out of order: entry {line['seq']} follows {self.seq}"
        if line["prev_hash"] != self.hash:
            return "its prev_hash is not the hash of the entry before"
        if line["hash"] != event_hash(self.hash, line):
            return "its hash does not fit its content"
        self.seq, self.hash = line["seq"], line["hash"]
        if self.kept.pop(self.seq, self.hash) != self.hash:
            return "a checkpoint that was kept elsewhere names another hash"
        return ""

    def checkpoint(self, line: Line, keys: dict[str, bytes]) -> str:
        if not is_signed(line, keys):
            return "the checkpoint's signature is not by the given key"
        if line["seq"] != self.seq:
            return f"a checkpoint names entry {line['seq']}, which is not there"
        if line["hash"] != self.hash:
            return "a checkpoint names another hash: the entries before it were rewritten"
        self.signed = self.seq
        return ""

    def head(self, line: Line) -> str:
        self.has_head = True
        if (line["seq"], line["hash"]) != (self.seq, self.hash):
            return f"the head says {line['seq']} entries, and {self.seq} fit: the tail was cut, added to, or replaced"
        return ""

    def end(self) -> str:
        if not self.has_head:
            return "the chain's head is missing: the tail may have been cut"
        return f"checkpoints kept elsewhere name entries {sorted(self.kept)}, which are not there" if self.kept else ""


def verify_lines(lines: Iterable[Line], keys: dict[str, bytes], kept: Iterable[Line] = ()) -> Verdict:
    """Follow the chains to the first bad entry. `kept`: checkpoints from a place that the service cannot write to."""
    verdict = Verdict()
    for bad in _walk(lines, keys, kept, verdict):
        verdict.ok, verdict.first_bad = False, bad
        break
    return verdict


def _walk(lines: Iterable[Line], keys: dict[str, bytes], kept: Iterable[Line], verdict: Verdict) -> Iterator[Bad]:
    waiting: dict[str, dict[int, str]] = {}
    for line in kept:
        if not is_signed(line, keys):
            yield Bad(line["chain"], line["seq"], "the kept checkpoint's signature is not by the given key")
        waiting.setdefault(line["chain"], {})[line["seq"]] = line["hash"]
    chain: Chain | None = None
    for line in lines:
        if chain is None or chain.name != line["chain"]:
            yield from _ended(chain, verdict)
            chain = Chain(line["chain"], kept=waiting.pop(line["chain"], {}))
        kind = line["type"]
        reason = (
            chain.event(line)
            if kind == "event"
            else (chain.checkpoint(line, keys) if kind == "checkpoint" else chain.head(line))
        )
        if reason:
            yield Bad(chain.name, line["seq"], reason)
        verdict.checked += kind == "event"
    yield from _ended(chain, verdict)
    for name, left in waiting.items():
        yield Bad(name, min(left), "the chain is gone: a checkpoint that was kept elsewhere names it")


def _ended(chain: Chain | None, verdict: Verdict) -> Iterator[Bad]:
    if chain is not None:
        if reason := chain.end():
            yield Bad(chain.name, chain.seq, reason)
        verdict.unsigned += chain.seq - chain.signed


def parse_keys(text: str) -> dict[str, bytes]:
    """Public keys, one `KEYID BASE64` a line. Raises ValueError."""
    keys = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        found = re.fullmatch(r"(\S+)\s+(\S+)", line)
        if not found:
            raise ValueError(f"{line!r} is not KEYID BASE64")
        keys[found[1]] = base64.b64decode(found[2], validate=True)
    return keys


def read_lines(path: Path) -> Iterator[Line]:
    """The objects of a file of JSON lines. Raises ValueError, naming the line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} line {number} is not JSON: {error}") from error


def main(argv: list[str]) -> int:
    """0: every entry is as it was written; 1: one is not; 2: the files cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m jobs.audit_verify", description="Verify an audit export offline.")
    parser.add_argument("export", type=Path, help="JSON lines of audit/export/")
    parser.add_argument("--pub", type=Path, required=True, help="file of public keys, KEYID BASE64 a line")
    parser.add_argument("--checkpoints", type=Path, help="checkpoints kept elsewhere, JSON lines")
    options = parser.parse_args(argv)
    try:
        kept = read_lines(options.checkpoints) if options.checkpoints else ()
        verdict = verify_lines(read_lines(options.export), parse_keys(options.pub.read_text()), kept)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"cannot verify: {type(error).__name__}: {error}\n")
        return 2
    sys.stdout.write(json.dumps(asdict(verdict)) + "\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
