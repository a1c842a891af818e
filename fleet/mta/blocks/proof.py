"""Whether a sender is refused, asked of the MTA itself: an SMTP dialogue without DATA, the same for every MTA.

One session asks for control senders first and for the sender in question last, with the same recipients. Only when a
control was accepted does a refusal of the other say anything about the block.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from fleet.mta.address import BlockPattern
from fleet.mta.blocks.listeners import Listener, reachable
from fleet.mta.results.changing import DialogueSeen, ListenerSeen
from fleet.mta.steps import Dialogue, Transcript

NULL_SENDER = "<>"
ELSEWHERE = "postmaster@mxfleet.invalid"
NOT_A_STRANGER = "this host's own address may relay, and such clients are not blocked"


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask. Senders and recipients in RFC 5321 form without brackets; the null sender is `<>`.

    `elsewhere`: a recipient that is accepted from clients that may relay only, for whom the list does not count; ""
    where it counts for them too.
    """

    listener: Listener
    helo: str
    controls: tuple[str, ...]
    sender: str
    recipients: tuple[str, ...]
    elsewhere: str = ""

    @property
    def asked(self) -> tuple[str, ...]:
        """The recipients of each sender."""
        return (*self.recipients, *filter(None, (self.elsewhere,)))

    @property
    def senders(self) -> tuple[str, ...]:
        return (*self.controls, self.sender)

    def dialogue(self) -> Dialogue:
        """EHLO, then MAIL, RCPT and RSET for each sender, QUIT."""
        lines = [f"EHLO {self.helo}"]
        for sender in self.senders:
            lines.append(_mail_from(sender))
            lines += [f"RCPT TO:<{recipient}>" for recipient in self.asked]
            lines.append("RSET")
        return Dialogue(self.listener.address, self.listener.port, (*lines, "QUIT"))


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the MTA answered. `reply`: to the sender in question; `reason`: why that proves nothing, or ""."""

    listener: Listener
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

    @property
    def is_refused(self) -> bool:
        return self.is_provable and not self.reply.startswith("2")

    def as_json(self) -> DialogueSeen:
        """The evidence."""
        evidence: DialogueSeen = {
            "control": {"sender": self.control, "recipient": self.recipient, "reply": self.control_reply},
            "blocked": {"sender": self.sender, "code": self.reply[:3], "text": "\n".join(texts_of(self.reply))},
        }
        return evidence if self.is_provable else {**evidence, "not_provable": self.reason}

    def at_listener(self) -> ListenerSeen:
        """What it showed of the place where it was held."""
        found: ListenerSeen = {**self.listener.as_json(), "reply": one_line(self.reply)}
        return found if self.is_provable else {**found, "not_provable": self.reason}


def sender_probe(
    pattern: BlockPattern, job: str, listener: Listener, *, host: str, recipients: tuple[str, ...], elsewhere: str = ""
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
    return Probe(listener, host, tuple(kept), sender, recipients, elsewhere)


def sender_probes(
    listeners: Iterable[Listener],
    pattern: BlockPattern,
    job: str,
    host_addresses: Sequence[str],
    *,
    host: str,
    recipients: tuple[str, ...],
    elsewhere: str = "",
) -> tuple[Probe, ...]:
    """One dialogue for each listener that is asked, each address and port once; see `sender_probe`."""
    asked = {
        (reachable(each.address, host_addresses), each.port): each.service for each in listeners if not each.unasked
    }
    return tuple(
        sender_probe(
            pattern, job, Listener(address, port, service), host=host, recipients=recipients, elsewhere=elsewhere
        )
        for (address, port), service in asked.items()
    )


def one_line(reply: str) -> str:
    """A reply of any number of lines as one: its code, then what each line says behind its own (RFC 5321 4.2.1)."""
    return f"{reply[:3]} {' '.join(texts_of(reply))}" if reply else ""


def texts_of(reply: str) -> list[str]:
    return [line[4:] for line in reply.split("\n")]


def read_proof(probe: Probe, transcript: Transcript) -> ProbeResult:
    """What a transcript of `probe.dialogue()` shows."""
    if not transcript.exchanges or not transcript.exchanges[0][1].startswith("2"):
        greeting = transcript.exchanges[0][1] if transcript.exchanges else ""
        return ProbeResult(
            probe.listener, probe.sender, reason=transcript.error or f"the server greets with {greeting!r}"
        )
    turns = _turns(probe, transcript)
    refusals = []
    for control, answers in zip(probe.controls, turns, strict=False):
        for recipient, reply in zip(probe.recipients, _verdicts(answers), strict=False):
            if reply.startswith("25"):
                return _compared(probe, turns, control, recipient, reply)
            refusals.append(f"{control} to {recipient}: {reply}")
    detail = "; ".join(refusals) or transcript.error or "no answer"
    return ProbeResult(probe.listener, probe.sender, reason=f"no control sender was accepted ({detail})"[:1000])


def _mail_from(sender: str) -> str:
    path = sender if sender == NULL_SENDER else f"<{sender}>"
    return f"MAIL FROM:{path}" + ("" if path.isascii() else " SMTPUTF8")


def _turns(probe: Probe, transcript: Transcript) -> list[list[str]]:
    """For each sender the replies to MAIL and to each RCPT, fewer where the session broke off."""
    replies = [reply for _, reply in transcript.exchanges[2:]]
    width = len(probe.asked) + 2
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
    if reply.startswith("2") and _may_relay(probe, turns):
        reason = f"{NOT_A_STRANGER}: {reply}"
    return ProbeResult(probe.listener, probe.sender, reply, control, recipient, control_reply, reason)


def _may_relay(probe: Probe, turns: list[list[str]]) -> bool:
    """Whether the server took mail for somewhere else from us."""
    elsewhere = (_verdicts(turn)[len(probe.recipients) :] for turn in turns[: len(probe.controls)])
    return any(reply.startswith("25") for replies in elsewhere for reply in replies)
