"""The grammar of OpenSMTPD's log lines (mta_log(), mda_log(), queue_log() and smtp_session.c of its source).

A line of a session has its ID, the part of smtpd, an event and `name=value` fields: a value stands in brackets, in
quotes or is a word. `stat` is the last field, because its text is others'. A name that stands twice makes a line that
could be read in two ways: None.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from fleet.mta.bounds import count_of

SESSION = re.compile(r"([0-9a-f]{16}) (smtp|mta|mda) (?:event=)?([a-z-]+) ?(.*)", re.DOTALL)
VALUE = r'(?:<[^>]*+>|"[^"]*+"|[^\s<"]*+)'
WHOLE = re.compile(rf"(?:[a-z_]+={VALUE}(?:, | |$))*+")
FIELD = re.compile(r'([a-z_]+)=(?:<([^>]*+)>|"([^"]*+)"|([^\s<"]*+))')
ENVELOPE = re.compile(r"\bevpid=([0-9a-f]{8})")
ENVELOPE_ID = re.compile(r"[0-9a-f]{16}")
DELAY = re.compile(r"-?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
STATUS = {
    "Ok": "sent", "TempFail": "deferred", "PermFail": "bounced", "Loop": "bounced", "LoopError": "bounced",
    "Expired": "expired",
}  # fmt: skip


@dataclass(slots=True)
class Attempted:
    """What a delivery line tells. `queue_id`: the message's. `orig_to`: the address before an alias, or "". `status`:
    `unclear` where the result is none of smtpd's known words."""

    queue_id: str
    sender: str
    recipient: str
    orig_to: str
    status: str
    relay: str
    delay: float | None
    reply: str
    is_local: bool


def fields_of(text: str) -> dict[str, str] | None:
    """Fields by name, values without brackets and quotes."""
    if WHOLE.fullmatch(text) is None:
        return None
    found = FIELD.findall(text)
    named = {name: inside or quoted or word for name, inside, quoted, word in found}
    return named if len(named) == len(found) else None


def delivery_line(text: str) -> Attempted | None:
    """The fields of `mta delivery` and `mda delivery`. None where a field that tells the fate is missing. Raises
    OutOfBounds."""
    said, mark, reply = text.partition(" stat=")
    named = fields_of(said) if mark and " stat=" not in reply and " result=" not in reply else None
    if named is None or not named.get("to") or not ENVELOPE_ID.fullmatch(named.get("evpid", "")):
        return None
    if not named.get("result"):
        return None
    if reply.startswith('"'):
        reply = reply[1:].removesuffix('"')
    return Attempted(
        named["evpid"][:8],
        named.get("from", ""),
        named["to"],
        original(named),
        STATUS.get(named["result"], "unclear"),
        named.get("relay") or named.get("user", ""),
        seconds_of(named.get("delay", "")),
        reply,
        "relay" not in named,
    )


def original(named: dict[str, str]) -> str:
    """The address before an alias, "" where it is the recipient."""
    rcpt = named.get("rcpt", "-")
    return "" if rcpt == "-" or rcpt.lower() == named["to"].lower() else rcpt


def given_up_line(text: str) -> dict[str, str] | None:
    """The fields of an envelope that was removed or expired, commas between them, up to `stat`."""
    said, mark, _ = text.partition(", stat=")
    named = fields_of(said)
    return named if mark and named and named.get("to") and "from" in named else None


def envelope_of(fields: str) -> str:
    """The message ID of the first envelope that a line names, or ""."""
    match = ENVELOPE.search(fields)
    return match[1] if match else ""


@lru_cache(4096)
def seconds_of(delay: str) -> float | None:
    """Seconds of `1d2h3m4s`; of a clock that went back, 0. Raises OutOfBounds."""
    match = DELAY.fullmatch(delay) if delay else None
    if match is None:
        return None
    days, hours, minutes, seconds = (count_of(part or "0") for part in match.groups())
    total = float(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
    return 0.0 if delay.startswith("-") else total
