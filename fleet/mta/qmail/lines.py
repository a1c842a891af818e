"""The grammar of qmail-send's log (qmail-log(5); qmail-send.c), for trace and attempt.

What others wrote has no blanks there: qmail-send writes _ for them, and / for ends of lines.
"""

import re
from dataclasses import dataclass

from fleet.mta.logs.tracing import dsn_of

SPLOGGER = re.compile(r"(?:\S+ )?qmail(?:\[\d+\])?: \d+\.\d+ ")
STARTING = re.compile(r"starting delivery (\d+): msg (\d+) to (local|remote) (.*)")
ENDED = re.compile(r"delivery (\d+): (?:(success|deferral|failure): ?|(report mangled, will defer))(.*)", re.DOTALL)
# The second is the end of mail whose sender is #@[], a double bounce that bounced.
BOUNCE = re.compile(r"bounce msg (\d+) qp \d+|triple bounce: discarding bounce/(?:\d+/)?(\d+)")
HOST = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f.:]*)_")
STATUS = {"success": "sent", "deferral": "deferred", "failure": "bounced"}
GIVEN_UP = "I'm not going to try again"


@dataclass(slots=True)
class Report:
    """How a delivery ended. `status`: sent, deferred, bounced or expired. `host`: the remote one's address, or ""."""

    number: str
    status: str
    host: str
    reply: str

    @property
    def dsn(self) -> str:
        return dsn_of(self.reply)


def words_of(rest: str) -> str:
    """What qmail-send says in a line, from behind its time on: through syslog or not."""
    return rest[head.end() :] if (head := SPLOGGER.match(rest)) else rest


def ended_line(text: str) -> Report | None:
    match = ENDED.fullmatch(text)
    if match is None:
        return None
    number, result, mangled, report = match.groups()
    reply = mangled or report.replace("_", " ").strip("/ ")
    status = STATUS.get(result, "deferred")
    if status == "bounced" and GIVEN_UP in reply:
        status = "expired"
    host = HOST.match(report)
    return Report(number, status, host[1] if host else "", reply)
