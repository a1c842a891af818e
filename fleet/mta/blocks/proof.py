"""Whether a sender is refused, asked of the MTA itself: an SMTP dialogue without DATA, the same for every MTA.

One session asks for control senders first and for the sender in question last, with the same recipients. Only when a
control was accepted does a refusal of the other say anything about the block.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from fleet.mta.address import BlockPattern
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Dialogue, Transcript

NULL_SENDER = "<>"


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask. Senders and recipients in RFC 5321 form without brackets; the null sender is `<>`."""

    address: str
    port: int
    helo: str
    controls: tuple[str, ...]
    sender: str
    recipients: tuple[str, ...]

    @property
    def senders(self) -> tuple[str, ...]:
        return (*self.controls, self.sender)

    def dialogue(self) -> Dialogue:
        """EHLO, then MAIL, RCPT and RSET for each sender, QUIT."""
        lines = [f"EHLO {self.helo}"]
        for sender in self.senders:
            lines.append(_mail_from(sender))
            lines += [f"RCPT TO:<{recipient}>" for recipient in self.recipients]
            lines.append("RSET")
        return Dialogue(self.address, self.port, (*lines, "QUIT"))


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the MTA answered. `reply`: to the sender in question; `reason`: why that proves nothing, or ""."""

    sender: str
    reply: str = ""
    control: str = ""
    recipient: str = ""
    control_reply: str = ""
    reason: str = ""

    @property
    def is_provable(self) -> bool:
        return not self.reason

    @property
    def is_accepted(self) -> bool:
        return self.is_provable and self.reply.startswith("2")

    def as_json(self) -> dict[str, Any]:
        """The evidence: {control {sender, recipient, reply}, blocked {sender, code, text}, not_provable?}."""
        evidence: dict[str, Any] = {
            "control": {"sender": self.control, "recipient": self.recipient, "reply": self.control_reply},
            "blocked": {"sender": self.sender, "code": self.reply[:3], "text": self.reply[4:]},
        }
        return evidence if self.is_provable else {**evidence, "not_provable": self.reason}


def sender_probe(
    pattern: BlockPattern, job: str, *, address: str, port: int, host: str, recipients: tuple[str, ...]
) -> Probe:
    """The dialogue that shows whether senders of the pattern are refused. The same job asks the same.

    `host`: the instance's own name, for EHLO and as the domain of the first control.
    """
    mark = f"mxfleet-{sha256(f'{job} {pattern.text}'.encode()).hexdigest()[:12]}"
    somebody = f"{mark}@{pattern.domain}" if pattern.domain else NULL_SENDER
    sender = pattern.address.smtp if pattern.address else somebody
    controls = [f"{mark}-control@{host}", f"{mark}-control@mxfleet.invalid", NULL_SENDER]
    is_own = f".{host}".endswith(f".{pattern.domain}") if pattern.domain else False
    kept = [each for each in controls if each != sender and not (is_own and each.endswith(f"@{host}"))]
    return Probe(address, port, host, tuple(kept), sender, recipients)


def sender_probes(
    places: Iterable[tuple[str, int]],
    pattern: BlockPattern,
    job: str,
    host_addresses: Sequence[str],
    *,
    host: str,
    recipients: tuple[str, ...],
) -> tuple[Probe, ...]:
    """One dialogue for each place, address and port, where the instance listens; see `sender_probe`."""
    probe = partial(sender_probe, pattern, job, host=host, recipients=recipients)
    return tuple(probe(address=reachable(address, host_addresses), port=port) for address, port in places)


def listening(instance: InstanceFacts) -> list[tuple[str, int]]:
    """Where the instance listens, address and port, each place once."""
    return list(dict.fromkeys((str(address), int(port)) for address, port in instance.options.get("listen", ())))


def reachable(address: str, host_addresses: Sequence[str]) -> str:
    """Where to ask a server that listens on `address`; loopback, whose clients are often exempt, only if need be.

    `host_addresses`: of the host, without loopback.
    """
    if address not in ("", "0.0.0.0", "::", "*"):  # noqa: S104 - compared, not bound
        return address
    plain = [each for each in host_addresses if not each.startswith("fe80:")]
    same = [each for each in plain if (":" in each) == (address == "::")]
    return (same or plain or ["127.0.0.1"])[0]


def read_proof(probe: Probe, transcript: Transcript) -> ProbeResult:
    """What a transcript of `probe.dialogue()` shows."""
    if not transcript.exchanges or not transcript.exchanges[0][1].startswith("2"):
        greeting = transcript.exchanges[0][1] if transcript.exchanges else ""
        return ProbeResult(probe.sender, reason=transcript.error or f"the server greets with {greeting!r}")
    turns = _turns(probe, transcript)
    refusals = []
    for control, answers in zip(probe.controls, turns, strict=False):
        for recipient, reply in zip(probe.recipients, _verdicts(answers), strict=False):
            if reply.startswith("25"):
                return _compared(probe, turns, control, recipient, reply)
            refusals.append(f"{control} to {recipient}: {reply}")
    detail = "; ".join(refusals) or transcript.error or "no answer"
    return ProbeResult(probe.sender, reason=f"no control sender was accepted ({detail})"[:1000])


def _mail_from(sender: str) -> str:
    path = sender if sender == NULL_SENDER else f"<{sender}>"
    return f"MAIL FROM:{path}" + ("" if path.isascii() else " SMTPUTF8")


def _turns(probe: Probe, transcript: Transcript) -> list[list[str]]:
    """For each sender the replies to MAIL and to each RCPT, fewer where the session broke off."""
    replies = [reply for _, reply in transcript.exchanges[2:]]
    width = len(probe.recipients) + 2
    return [replies[width * n : width * (n + 1) - 1] for n in range(len(probe.senders))]


def _verdicts(answers: list[str]) -> list[str]:
    """One reply per recipient: a refused MAIL is the answer to all of them (RCPT then says only 503)."""
    if answers and not answers[0].startswith("2"):
        return [answers[0]] * max(1, len(answers) - 1)
    return answers[1:]


def _compared(probe: Probe, turns: list[list[str]], control: str, recipient: str, control_reply: str) -> ProbeResult:
    answers = _verdicts(turns[len(probe.controls)])
    index = probe.recipients.index(recipient)
    # After a 421 or 521 the server hangs up, so the last reply stands for the recipients that were not asked.
    reply = answers[index] if index < len(answers) else (answers or [""])[-1]
    reason = "" if reply else "the session ended before the sender was judged"
    return ProbeResult(probe.sender, reply, control, recipient, control_reply, reason)
