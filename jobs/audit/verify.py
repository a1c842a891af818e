"""The audit chain's arithmetic, and an offline verifier: `python -m jobs.audit.verify EXPORT --pub KEYS`.

No Django, no database. An export has one JSON object a line, chain after chain: `event` lines in the order of `seq`,
each `checkpoint` after the entry that it signs, the `head` last. Where only a time was asked for, each chain begins
with an `excerpt` line: the number and hash of the entry before. This file works alone with Python and cryptography.
"""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Line = dict[str, Any]
Keys = dict[str, bytes]
EVENT = ("chain", "seq", "at", "actor", "on_behalf_of", "channel", "source", "action", "object", "job", "data")
CHECKPOINT = ("chain", "seq", "hash", "at")
LINKED = (*CHECKPOINT, "previous", "previous_hash")
GAP = ("chain", "from", "to", "last_known_hash", "reason")
GAP_ACTION = "audit.gap_acknowledged"


def canonical(line: Line, names: tuple[str, ...]) -> bytes:
    """These members as RFC 8785 JSON: jobs.audit lets in only keys and numbers that json.dumps writes so too."""
    members = {name: line[name] for name in names}
    text = json.dumps(members, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def event_hash(prev_hash: str, event: Line) -> str:
    """SHA-256 over the format's name, the entry before and this one, as hexadecimal digits."""
    return hashlib.sha256(b"mxfleet-audit-v1\n" + prev_hash.encode() + canonical(event, EVENT)).hexdigest()


def checkpoint_content(line: Line) -> bytes:
    """What a checkpoint's signature is over. Those of mxfleet 0.2 and before do not name the one before them."""
    return canonical(line, LINKED if "previous" in line else CHECKPOINT)


def is_signed(line: Line, keys: Keys) -> bool:
    """Whether the checkpoint's signature is by one of these keys."""
    return _is_by(line["signature"], checkpoint_content(line), keys)


def is_gap_signed(chain: str, data: Line, keys: Keys) -> bool:
    """Whether the acknowledgement of a gap, an entry's `data`, is signed by one of these keys, for this chain."""
    try:
        return _is_by(data["signature"], canonical({**data, "chain": chain}, GAP), keys)
    except (KeyError, TypeError, AttributeError):
        return False


def _is_by(signature: str, content: bytes, keys: Keys) -> bool:
    """Whether the signature `KEYID:BASE64` of the content is by one of these Ed25519 public keys."""
    key_id, _, value = signature.partition(":")
    try:
        Ed25519PublicKey.from_public_bytes(keys[key_id]).verify(base64.b64decode(value), content)
    except (KeyError, ValueError, InvalidSignature):
        return False
    return True


class Bad(NamedTuple):
    chain: str
    seq: int
    reason: str


class Gap(NamedTuple):
    """Entries `first` to `last`, as they once were, are not all in the chain: the entry `seq` acknowledges that."""

    chain: str
    seq: int
    first: int
    last: int
    last_known_hash: str
    at: str
    reason: str


class Verdict(NamedTuple):
    """`checked`: good entries. `unsigned`: those after the last checkpoint, which a rewrite could have made.

    `excerpts`: [chain, first, last] of those of which no other entries were looked at.
    """

    ok: bool
    checked: int
    unsigned: int
    first_bad: Bad | None
    gaps: list[Gap]
    excerpts: Sequence[tuple[str, int, int]] = ()


@dataclass(slots=True)
class Chain:
    """How far one chain was followed. `excerpt`, `event`, `checkpoint` and `head` answer why a line is bad, or nothing.

    `before`: the entry before an excerpt; None: the chain is whole.
    """

    name: str
    kept: dict[int, str] = field(default_factory=dict)
    seq: int = 0
    hash: str = ""
    signed: int = 0
    signed_hash: str = ""
    is_linked: bool = False
    has_head: bool = False
    before: int | None = None
    doubted: list[int] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def excerpt(self, line: Line, keys: Keys) -> str:
        if self.seq or self.has_head or self.before is not None:
            return "an excerpt begins within a chain"
        self.before = self.seq = self.signed = line["seq"]
        self.hash = line["hash"]
        return ""

    def event(self, line: Line, keys: Keys) -> str:
        if line["seq"] != self.seq + 1:
            return f"entry {self.seq + 1} is missing or out of order: {line['seq']} follows {self.seq}"
        if line["prev_hash"] != self.hash:
            return "prev_hash is not the hash of the entry before"
        if line["hash"] != event_hash(self.hash, line):
            return "the hash does not fit the content"
        self.seq, self.hash = line["seq"], line["hash"]
        if self.kept.pop(self.seq, self.hash) != self.hash:
            self.doubted.append(self.seq)
        return self._gap(line, keys) if line["action"] == GAP_ACTION else ""

    def _gap(self, line: Line, keys: Keys) -> str:
        data = line["data"]
        if not is_gap_signed(self.name, data, keys):
            return "the acknowledgement of a gap is not signed by a known key"
        first, last, known = data["from"], data["to"], data["last_known_hash"]
        self.gaps.append(Gap(self.name, self.seq, first, last, known, line["at"], data["reason"]))
        return ""

    def checkpoint(self, line: Line, keys: Keys) -> str:
        if not is_signed(line, keys):
            return "the checkpoint's signature is not by a known key"
        if (line["seq"], line["hash"]) != (self.seq, self.hash):
            return f"a checkpoint names an entry {line['seq']} that is not there: the chain was cut or rewritten"
        if "previous" in line and not self._follows_the_last(line):
            return f"the checkpoint before it, of entry {line['previous']}, is not there"
        if self.is_linked and "previous" not in line:
            return "the checkpoint does not name the one before it"
        self.signed, self.signed_hash, self.is_linked = self.seq, self.hash, "previous" in line
        return ""

    def _follows_the_last(self, line: Line) -> bool:
        """Of an excerpt's first checkpoint only that those before it sign nothing of the excerpt is to be seen."""
        if self.before is not None and not self.signed_hash:
            return bool(line["previous"] <= self.before)
        return bool((line["previous"], line["previous_hash"]) == (self.signed, self.signed_hash))

    def head(self, line: Line, keys: Keys) -> str:
        self.has_head = True
        fits = (line["seq"], line["hash"]) == (self.seq, self.hash)
        return "" if fits else f"the head names entry {line['seq']}, the last is {self.seq}: cut, added to or replaced"

    def end(self) -> Iterator[Bad]:
        if not self.has_head:
            yield Bad(self.name, self.seq, "the chain's head is missing: the tail may have been cut")
        for seq in filter(self._is_unexplained, self.doubted):
            yield Bad(self.name, seq, "a checkpoint kept elsewhere names another hash: the chain was rewritten")
        for seq in filter(self._is_unexplained, self.kept if self.before is None else ()):
            yield Bad(self.name, seq, "a checkpoint kept elsewhere names it, and it is not there")

    def _is_unexplained(self, seq: int) -> bool:
        return not any(gap.first <= seq <= gap.last for gap in self.gaps)


def verify_lines(
    lines: Iterable[Line], keys: Keys, kept: Iterable[Line] = (), *, takes_excerpts: bool = False
) -> Verdict:
    """Follow the chains to the first bad line. `kept`: checkpoints from a place that the service cannot write to.

    An excerpt is bad unless one is expected: else a chain whose beginning or end was cut off would pass as one.
    """
    chains: dict[str, Chain] = {}
    bad = next(_bad_lines(lines, keys, kept, chains), None)
    excerpts = [(chain.name, chain.before + 1, chain.seq) for chain in chains.values() if chain.before is not None]
    if excerpts and not takes_excerpts and bad is None:
        name, first, last = excerpts[0]
        bad = Bad(name, first, f"an excerpt: what is before entry {first} and after {last} is not proven")
    unsigned = sum(chain.seq - chain.signed for chain in chains.values())
    gaps = [gap for chain in chains.values() for gap in chain.gaps]
    checked = sum(chain.seq - (chain.before or 0) for chain in chains.values())
    return Verdict(bad is None, checked, unsigned, bad, gaps, excerpts)


def _bad_lines(lines: Iterable[Line], keys: Keys, kept: Iterable[Line], chains: dict[str, Chain]) -> Iterator[Bad]:
    for line in kept:
        chains.setdefault(line["chain"], Chain(line["chain"])).kept[line["seq"]] = line["hash"]
        if not is_signed(line, keys):
            yield Bad(line["chain"], line["seq"], "the kept checkpoint's signature is not by a known key")
    for line in lines:
        chain = chains.setdefault(line["chain"], Chain(line["chain"]))
        judges = {"event": chain.event, "checkpoint": chain.checkpoint, "head": chain.head, "excerpt": chain.excerpt}
        judge = judges[line["type"]]
        if reason := judge(line, keys):
            yield Bad(chain.name, line["seq"], reason)
    for chain in chains.values():
        yield from chain.end()


def _each(path: str, read: Callable[[str], Any], expected: str) -> Iterator[Any]:
    """What `read` makes of each line. Raises ValueError, with file and line, where it is no `expected`."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield read(line)
            except ValueError as error:
                raise ValueError(f"{path} line {number}: expected {expected}: {error}") from None


def _key(line: str) -> tuple[str, bytes]:
    key_id, key = line.split()
    return key_id, base64.b64decode(key, validate=True)


def main(argv: list[str]) -> int:
    """0: every entry is as it was written; 1: one is not. Exits with 2 when the files cannot be read."""
    parser = argparse.ArgumentParser(description="Verify an audit export offline.")
    parser.add_argument("export", help="JSON lines of audit/export/")
    parser.add_argument("--pub", required=True, help="file of public keys, KEYID BASE64 a line")
    parser.add_argument("--checkpoints", default="/dev/null", help="checkpoints kept elsewhere, JSON lines")
    parser.add_argument("--excerpt", action="store_true", help="the export is of a time only: take it as that")
    options = parser.parse_args(argv)
    try:
        keys = dict(_each(options.pub, _key, "KEYID BASE64"))
        lines, kept = (_each(path, json.loads, "a JSON object") for path in (options.export, options.checkpoints))
        verdict = verify_lines(lines, keys, kept, takes_excerpts=options.excerpt)
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"cannot verify: {type(error).__name__}: {error}")
    told = {name: value for name, value in verdict._asdict().items() if value or name != "excerpts"}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
