"""What Exim logs of mail that comes: accepted (receive.c) and refused (smtp_in.c, receive.c)."""

import re
from dataclasses import dataclass

from fleet.mta.bounds import size_of
from fleet.mta.exim.fields import UnclearError, fields_after, fields_of, unwrapped

LOCAL = r'(?:[^<>"\s]++|"(?:[^"\\]|\\.)*")*+'
# Behind the fields, by the selectors received_sender and received_recipients; or the word that syslog cut.
TAIL = r'(?: from <[^>]*>)?(?: for(?P<to>(?: [^ ]++)++)| [^ "=()\[\]]*)?'
CAME = fields_after(r'[<(]= ((?:[^" ]+|"(?:[^"\\]|\\.)*")*+)', "H", "P", "S", r"id\*?", tail=TAIL)
PLAIN = re.compile(r'(?: [^ "<>@]++@[^ "<>@]++)++')

OVERFLOWED = "**** log string overflowed log buffer ****"  # in place of what was more than 8 KB
ENDED = re.compile(r"\) (\[[\da-fA-F:.]+(?:%[^\] ]+)?\])")
PEER = r"(?P<client>(?:[^\s()\[\]=]+ )?(?:\([^)]*\) )?\[[^\]\s]*\](?::\d+)?)"
HOST = rf"(?:(?:H=)?{PEER}|(?:U=)?[^\s\[\]()]+)(?: (?:I|U|Ci)=[^\s:]*\S)*"
VERB = r"(?:temporarily )?rejected "
STAGE = (
    rf"RCPT (?:<(?P<to>{LOCAL})>?|(?P<bare>[^\s:<>]+))[^:]*|MAIL <?(?P<mail>{LOCAL})>?[^:]*|"
    r"EHLO or HELO .*?|connection in .*?|"
    r"(?P<whole>(?:after )?DATA(?: PRDR)?|during MIME ACL checks|DKIM.*?|by (?:local_scan\(\)|non-SMTP ACL))"
)
# With an address: by the host that it was passed on to meanwhile (cutthrough_delivery).
REFUSED = re.compile(
    rf"(?: (?P<passed>[^\s<>]+@[^\s<>]+)(?P<more>(?: [FPQ]=\S+)*))? {VERB}(?:{STAGE})(?:: ?(?P<reply>.*))?", re.DOTALL
)
DISCARDED = re.compile(rf" RCPT (?:<(?P<to>{LOCAL})>?|(?P<bare>\S+)): discarded by (?P<reply>(?:MAIL|RCPT) ACL.*)")
# Refusals that ACLs have no part in begin with what was refused.
ALONE = tuple(
    re.compile(form, re.DOTALL)
    for form in (
        rf"rejected from <(?P<mail>{LOCAL})>(?: ?H={PEER})?(?: ?U=[^:\s]*)?: (?P<reply>.*)",
        rf"rejected MAIL FROM:<(?P<mail>{LOCAL})> {HOST}: (?P<reply>message too big.*)",
        rf"rejected MAIL (?:from|command) {HOST}: (?P<reply>.*)",
        rf"unqualified (?P<reply>sender rejected): <(?P<mail>[^>]*)> {HOST}.*",
        rf"unqualified (?P<reply>recipient rejected): <(?P<to>[^>]*)> {HOST}.*",
        r"too many recipients: (?P<reply>message rejected|excess temporarily rejected): "
        rf"sender=<(?P<mail>{LOCAL})> {HOST}",
        rf"rejected (?:HELO|EHLO) from {HOST}: (?P<reply>.*)",
        rf"(?:temporarily )?rejected \"(?P<reply>(?:HELO|EHLO) [^\"]*)\" from {HOST}",
        rf"(?:temporarily )?refused connection from {HOST}(?:: | )(?P<reply>.*)",
        rf"connection from {HOST} refused (?P<reply>.*)",
        r"(?P<reply>SMTP protocol synchronization error \([^()]*\)): "
        rf"rejected (?:connection from|\"[^\"]*\") {HOST} .*",
    )
)
# One such word alone: a second may be somebody's.
ONCE = re.compile(
    r" rejected (?:RCPT|MAIL|DATA|after|EHLO|HELO|connection|from|by|during)| discarded by | dropped by '"
)
ASKING = fields_after("", "H", "F")
PASSED_ON = fields_after("", "H", "F", "C")
BY_ACL = ("H=", "U=", "F=", "DS H=")
DROPPED = re.compile(r" dropped by (?P<reply>.*)")
NO_MAIL = re.compile(rf" {VERB}(?:VRFY|EXPN|AUTH|ETRN|ATRN|STARTTLS|QUIT|HELP)\b")


@dataclass(slots=True)
class Arrival:
    """`client` "": this host. `recipients`: those that are named, and that we can name as Exim will."""

    sender: str
    client: str
    size: int | None
    message_id: str
    recipients: tuple[str, ...]


@dataclass(slots=True)
class Refusal:
    """`sender` None: not told. `is_whole`: of the mail with all recipients."""

    sender: str | None
    recipient: str
    client: str
    reply: str
    status: str = "rejected"
    is_whole: bool = False


def arrival_of(text: str) -> Arrival:
    """A line that begins with `<=`, or `(=` where the client was told otherwise. Raises UnclearError, OutOfBounds."""
    match = CAME.fullmatch(text)
    if match is None:
        raise UnclearError
    sender, host, _, size, message_id, named = match.groups("")
    client = _client_of(host, text, before=" P=")
    return Arrival(
        sender.strip("<>"),
        "" if client.endswith(("[127.0.0.1]", "[::1]")) else client,
        size_of(size) if size.isdecimal() else None,
        message_id,
        tuple(named.split()) if PLAIN.fullmatch(named) else (),
    )


def _client_of(host: str, text: str, *, before: str = "") -> str:
    """The host as rows have it, without a port. Raises UnclearError where it may be what another client calls itself.

    By helo_accept_junk_hosts this may be anything, but the end of the client itself is always behind it: in `text`, and
    there in front of the last `before`.
    """
    client = host[: host.rindex("]") + 1] if "]" in host else host
    if "(" not in client:
        return client
    if OVERFLOWED in text:
        raise UnclearError
    if text.count(") [") == 1:  # its own
        return client
    behind = text.partition(client)[2]
    if before and before in behind:
        behind = behind.rpartition(before)[0]
    address = client[client.rindex("[") :]
    if any(other != address for other in ENDED.findall(behind)):
        raise UnclearError
    return client


def refusal_of(text: str) -> Refusal | None:
    """What the line refuses or throws away; None for one that does neither. Raises UnclearError."""
    if not ("rejected" in text or "refused " in text or "discarded by " in text or "dropped by " in text):
        return None
    if text.startswith(BY_ACL):
        return _by_acl(f" {text}")
    for form in ALONE:
        if match := form.fullmatch(text):
            given = match.groupdict()
            return Refusal(
                given.get("mail"),
                given.get("to", ""),
                _client_of(given.get("client") or "", text),
                match["reply"],
            )
    if text.startswith("rejected ") and not text.startswith("rejected XCLIENT "):
        raise UnclearError
    return None


def _by_acl(text: str) -> Refusal | None:
    (host, asking), rest = fields_of(ASKING, text)
    match = REFUSED.fullmatch(rest) or DISCARDED.fullmatch(rest) or DROPPED.fullmatch(rest)
    if match is None:
        is_told_by_others = rest.startswith(": ") or NO_MAIL.match(rest)
        if ONCE.search(text) and not is_told_by_others:
            raise UnclearError
        return None
    is_said_again = sum(map(text.count, ("rejected ", "discarded by ", "dropped by "))) > 1
    if (is_said_again and len(ONCE.findall(text)) > 1) or text.count(" F=<") > 1:
        raise UnclearError
    given = match.groupdict()
    reply = match["reply"] or ""
    if given.get("passed"):
        asking = fields_of(PASSED_ON, given["more"])[0][1] or asking
        reply = unwrapped(fields_of(PASSED_ON, f" {reply}")[0][2] or reply)
    sender = asking or given.get("mail")
    return Refusal(
        None if sender is None else sender.removeprefix("<").removesuffix(">"),
        given.get("passed") or given.get("to") or given.get("bare") or "",
        _client_of(host, text),
        reply,
        "discarded" if " discarded by " in rest else "rejected",
        is_whole=given.get("whole") is not None,
    )
