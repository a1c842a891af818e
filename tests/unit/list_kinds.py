"""The five kinds of list of senders on this machine: a real file, our own scripts, stand-ins for the MTA's programs.

postmap and makemap are stand-ins that build a map as a text, by the rules of their manual pages; what an MTA says to a
sender is played from the map, the file, or what smtpd has loaded.
"""

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.mta.blocks.proof import ELSEWHERE
from fleet.mta.exim import Exim
from fleet.mta.opensmtpd import OpenSmtpd
from fleet.mta.opensmtpd import blocks as opensmtpd
from fleet.mta.postfix import Postfix, access
from fleet.mta.qmail import Qmail
from fleet.mta.records import InstanceFacts
from fleet.mta.sendmail import Sendmail
from fleet.mta.steps import Command, Completed, Dialogue, Plan, Steps, Transcript
from tests.unit.real_scripts import run_script

TEXT = b"Sender address blocked"
OWN = "mx.host.test"
AWK_MAP = r"""
awk '
    function put(  at, key, value) {
        if (line == "") return
        match(line, /^[^ \t\v\f\r]+/)
        key = tolower(substr(line, 1, RLENGTH)); value = substr(line, RLENGTH + 1)
        sub(/^[ \t\v\f\r]+/, "", value)
        if (trims) sub(/[ \t\v\f\r]+$/, "", value)
        if (value != "" && !(key in seen)) { seen[key]; print key "\t" value } else wrong = 1
    }
    /^[ \t\v\f\r]*$/ || /^#/ || (trims && /^[ \t\v\f\r]*#/) { next }
    /^[ \t\v\f\r]/ { if (trims && line != "") line = line $0; next }
    { put(); line = $0 }
    END { put(); exit wrong && !trims ? 65 : 0 }'
"""
"""Lines of an access map's source to lines of a map. `trims`: as postmap does it."""

POSTMAP = f"""#!/bin/sh
[ "$1" != -c ] || shift 2
case $1 in
-q)
    KEY=$2 awk -F '\\t' '
        $1 == ENVIRON["KEY"] {{ print substr($0, length($1) + 2); found = 1; exit }}
        END {{ exit !found }}' "${{3#*:}}.db"
    ;;
-s) cat "${{2#*:}}.db" ;;
*) file=${{1#*:}}; {AWK_MAP.strip()} trims=1 "$file" >"$file.db.new" && mv "$file.db.new" "$file.db" ;;
esac
"""
MAKEMAP = f"""#!/bin/sh
[ "$1" != -C ] || shift 2
[ "$1" != -u ] || exec cat "$3.db"
{AWK_MAP.strip()} trims= - >"$2.db"
"""
POSTCONF = """#!/bin/sh
dir=ROOT
[ "$1" != -c ] || { dir=$2; shift 2; }
flag=$1
shift
value() { sed -n "s/^$1 *= *//p" "$dir/main.cf" | tail -n 1; }
case $flag in
-h | -xh) for name; do if [ "$name" = config_directory ]; then echo "$dir"; else value "$name"; fi; done ;;
-x) for name; do echo "$name = $(value "$name")"; done ;;
-M) echo 'smtp inet n - y - - smtpd' ;;
-m) echo hash ;;
-n) grep '^[a-z_]* *=' "$dir/main.cf" ;;
esac
exit 0
"""
SMTPCTL = """#!/bin/sh
file=$(sed -n "s/^table $3 file://p" ROOT/smtpd.conf)
cp "$file" ROOT/loaded
"""
MAIN_CF = f"""myhostname = {OWN}
mydestination = {OWN}
inet_interfaces = all
default_database_type = hash
smtputf8_enable = yes
smtpd_null_access_lookup_key = <>
parent_domain_matches_subdomains = smtpd_access_maps
"""
HOOKED = """#!/bin/sh
# Somebody else edits right before this program of ours runs, once.
! /bin/mv ROOT/hook-NAME ROOT/hooked 2>/dev/null || PATH=/usr/bin:/bin sh ROOT/hooked
exec "$(PATH=/usr/bin:/bin command -v NAME)" "$@"
"""


@dataclass
class Listed:
    """A host with one list. `entries`: the lines that we write for a pattern. `head`: what a file of ours begins with.

    `between`: called at each border of our steps. `changed`: called with the file's bytes before and after each change.
    """

    root: Path
    adapter: Any
    instance: InstanceFacts
    path: Path
    entries: dict[str, tuple[bytes, ...]]
    head: bytes = b""
    has_map: bool = False
    between: Callable[[], None] = lambda: None
    changed: Callable[[bytes | None, bytes | None], None] = lambda before, after: None
    seen: bytes | None = None
    plan: Plan | None = None

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    @property
    def map(self) -> Path:
        return self.path.with_name(f"{self.path.name}.db")

    def content(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def tool(self, name: str, text: str) -> None:
        self.tools.mkdir(exist_ok=True)
        (self.tools / name).write_text(text.replace("ROOT", str(self.root)).replace("NAME", name))
        (self.tools / name).chmod(0o755)

    def build(self) -> None:
        """What an administrator does after an edit, where something is built or loaded."""
        command = {"postfix": f"postmap hash:{self.path}", "sendmail": f"makemap hash {self.path} <{self.path}"}
        shell = command.get(self.instance.mta)
        if shell and self.path.exists():
            run_script_line(f"{self.tools}/{shell}")

    def in_effect(self) -> dict[bytes, bytes]:
        """What counts now: the map, or the lines of the file as `block_file.sh query` looks for them."""
        if not self.has_map:
            return {line.strip(b" \t\r").lower(): b"" for line in (self.content() or b"").split(b"\n")}
        lines = self.map.read_bytes().split(b"\n") if self.map.exists() else []
        return {key: value for key, tab, value in (line.partition(b"\t") for line in lines) if tab}

    def is_blocked(self, pattern: str) -> bool:
        """Whether every entry of the pattern was in effect when we looked last."""
        there = self.effect_seen
        pairs = (entry.partition(b"\t") for entry in self.entries[pattern])
        return all(there.get(key.lower()) == value for key, _, value in pairs)

    effect_seen: dict[bytes, bytes] = field(default_factory=dict)

    def drive(self, steps: Steps[Any], *, until_plan: bool = False) -> Any:
        """What the bridge does, with a border before each step and after the last."""
        answer: Any = None
        self.plan = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value
            self.between()
            if isinstance(step, Plan):
                self.plan, answer = step, None
                if until_plan:
                    return step
            elif isinstance(step, Dialogue):
                answer = self.talk(step)
            else:
                answer = self.answer(step)

    def answer(self, command: Command) -> Completed:
        if command.script is None:
            return Completed(0, b"192.0.2.9\n")
        if command.script == "opensmtpd_wire.sh" and command.mutates:
            return self.wire(command)
        before = self.content()
        done = run_script(command, self.tools)
        self.changed(before, self.content())
        self.effect_seen = self.in_effect()
        return done

    def wire(self, command: Command) -> Completed:
        """smtpd.conf, as opensmtpd_wire.sh changes it; a restart loads the table."""
        conf = self.root / "smtpd.conf"
        text = conf.read_text()
        ours = "".join(opensmtpd.our_lines(self.instance))
        at = text.index("match ")
        conf.write_text(text.replace(ours, "") if command.argv[0] == "unwire" else text[:at] + ours + text[at:])
        (self.root / "loaded").write_bytes(self.content() or b"")
        return Completed(0, b"applied x\n")

    def talk(self, dialogue: Dialogue) -> Transcript:
        said, sender = [("", "220 ready"), (dialogue.lines[0], "250 hello")], ""
        for line in dialogue.lines[1:]:
            if line.startswith("MAIL FROM:"):
                sender = line.removeprefix("MAIL FROM:").strip("<>").lower()
            reply = self.verdict(sender) if line.startswith("RCPT") else "250 ok"
            said.append((line, "550 relaying denied" if line == f"RCPT TO:<{ELSEWHERE}>" else reply))
        return Transcript(tuple(said))

    def verdict(self, sender: str) -> str:
        """The reply to RCPT."""
        domain = sender.rpartition("@")[2]
        parents = [domain[at:] for at, sign in enumerate(f".{domain}") if sign == "."]
        return REPLIES[self.instance.mta](self, sender, domain, parents)


def run_script_line(line: str) -> None:
    subprocess.run(["/bin/sh", "-c", line], env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, check=False, timeout=60)


def _postfix_says(host: Listed, sender: str, domain: str, parents: list[str]) -> str:
    there = host.in_effect() if "check_sender_access" in (host.root / "main.cf").read_text() else {}
    value = next((there[key.encode()] for key in (sender, *parents) if key.encode() in there), b"")
    code, _, text = value.partition(b" 5.7.1 ")
    shown = text.decode("utf-8", "replace")
    return f"{code.decode('ascii', 'replace')} 5.7.1 <{sender}>: Sender address rejected: {shown}" if text else "250 ok"


def _sendmail_says(host: Listed, sender: str, domain: str, parents: list[str]) -> str:
    there = host.in_effect()
    value = next((there[f"from:{key}".encode()] for key in (sender, *parents) if f"from:{key}".encode() in there), b"")
    return f"550 5.7.1 <r@{OWN}>... {TEXT.decode()}" if value.startswith(b"ERROR") else "250 ok"


def _exim_says(host: Listed, sender: str, domain: str, parents: list[str]) -> str:
    items = [each for each in host.in_effect() if each and not each.startswith(b"#")]
    wanted = {sender, f"*@{domain}", *(f"*@*.{parent}" for parent in parents[1:])}
    is_listed = any(item.decode("utf-8", "replace") in wanted for item in items)
    return "550 sender envelope address is locally blacklisted here" if is_listed else "250 ok"


def _qmail_says(host: Listed, sender: str, domain: str, parents: list[str]) -> str:
    is_listed = {sender.encode(), f"@{domain}".encode()} & host.in_effect().keys()
    return "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)" if is_listed else "250 ok"


def _smtpd_says(host: Listed, sender: str, domain: str, parents: list[str]) -> str:
    if "reject" not in (host.root / "smtpd.conf").read_text() or not (host.root / "loaded").exists():
        return "250 ok"
    loaded = {line.strip().lower() for line in (host.root / "loaded").read_bytes().split(b"\n")}
    return "550 Invalid recipient: <r>" if {sender.encode(), f"@{domain}".encode()} & loaded else "250 ok"


REPLIES = {
    "postfix": _postfix_says,
    "sendmail": _sendmail_says,
    "exim": _exim_says,
    "qmail": _qmail_says,
    "opensmtpd": _smtpd_says,
}


def _facts(mta: str, config: Path, **options: Any) -> InstanceFacts:
    given = {"own_domains": [OWN], "listen": [["192.0.2.9", 25]], **options}
    return InstanceFacts("mx1", mta, mta, "1", str(config), (), options=given)


def make_postfix(root: Path, *, wired: bool = True) -> Listed:
    path = root / ("senders" if wired else "mxfleet_senders")
    check = f"smtpd_sender_restrictions = check_sender_access hash:{path}\n" if wired else ""
    (root / "main.cf").write_text(MAIN_CF + check)
    (root / "master.cf").write_text("")
    entry = b"\t550 5.7.1 " + TEXT
    entries = {name: (name.lstrip(".").encode() + entry,) for name in ("news@bulk.test", "bulk.test", ".sub.test")}
    head = b"" if wired else access.OWN_HEAD.encode()
    host = Listed(root, Postfix(), _facts("postfix", root), path, entries, head, has_map=True)
    host.tool("postconf", POSTCONF)
    host.tool("postmap", POSTMAP)
    host.tool("postfix", "#!/bin/sh\n")
    return host


def make_sendmail(root: Path) -> Listed:
    path = root / "access"
    (root / "sendmail.cf").write_text(f"Kaccess hash -T<TMPF> -o {path}\n")
    entry = b'\tERROR:5.7.1:"550 ' + TEXT + b'"'
    entries = {name: (f"From:{name.lstrip('.')}".encode() + entry,) for name in ("news@bulk.test", "bulk.test")}
    facts = _facts("sendmail", root, config_file=f"{root}/sendmail.cf", access_map=f"hash:{path}")
    host = Listed(root, Sendmail(), facts, path, entries, has_map=True)
    host.tool("makemap", MAKEMAP)
    return host


def make_exim(root: Path) -> Listed:
    path = root / "local_sender_blacklist"
    (root / "exim.conf").write_text(f"CONFDIR = {root}\n  senders = ${{if exists{{CONFDIR/{path.name}}}}}\n")
    entries = {
        "news@bulk.test": (b"news@bulk.test",),
        "bulk.test": (b"*@bulk.test",),
        ".sub.test": (b"*@sub.test", b"*@*.sub.test"),
    }
    facts = _facts("exim", root, config_file=f"{root}/exim.conf", blacklist_file=str(path))
    return Listed(root, Exim(), facts, path, entries)


def make_qmail(root: Path) -> Listed:
    for name in ("bin", "control"):
        (root / name).mkdir()
    (root / "bin/qmail-queue").touch(0o755)
    entries = {"news@bulk.test": (b"news@bulk.test",), "bulk.test": (b"@bulk.test",)}
    return Listed(
        root, Qmail(), _facts("qmail", root / "control", home=str(root)), root / "control/badmailfrom", entries
    )


def make_opensmtpd(root: Path, *, wired: bool = True) -> Listed:
    path = root / ("blocked" if wired else "mxfleet_senders")
    table = f"table blocked file:{path}\nmatch from any mail-from <blocked> for any reject\n" if wired else ""
    (root / "smtpd.conf").write_text(f"{table}match from any for any action local\n")
    (root / "smtpd").touch(0o755)
    entries = {"news@bulk.test": (b"news@bulk.test",), "bulk.test": (b"@bulk.test",)}
    facts = _facts("opensmtpd", root, config_file=f"{root}/smtpd.conf", smtpd=f"{root}/smtpd")
    host = Listed(root, OpenSmtpd(), facts, path, entries, b"" if wired else opensmtpd.PLACEHOLDER.encode())
    host.tool("smtpctl", SMTPCTL)
    return host


KINDS: dict[str, Callable[[Path], Listed]] = {
    "postfix": make_postfix,
    "postfix, own map": lambda root: make_postfix(root, wired=False),
    "sendmail": make_sendmail,
    "exim": make_exim,
    "qmail": make_qmail,
    "opensmtpd": make_opensmtpd,
    "opensmtpd, own table": lambda root: make_opensmtpd(root, wired=False),
}


def entry_of(host: Listed) -> Callable[[random.Random], bytes]:
    """Lines that others write: in the list's syntax, now and then for the same sender as ours."""

    def entry(chance: random.Random) -> bytes:
        who = chance.choice([f"u{chance.randrange(10**6)}@x{chance.randrange(99)}.test"] * 12 + ["news@bulk.test"])
        if not host.has_map:
            before, after = chance.choice([("", "")] * 6 + [(" ", ""), ("", "\r"), ("!", ""), ("", " # why")])
            return f"{before}{who}{after}\n".encode()
        tag = chance.choice(("From:", "To:", "")) if host.instance.mta == "sendmail" else ""
        value = chance.choice(("REJECT", "OK", "550 5.7.1 mine", "REJECT caf\u00e9", "REJECT\r"))
        goes_on = chance.choice(["\n"] * 9 + ["\n  goes on\n"])
        blank = chance.choice(("\t", " "))
        return f"{tag}{who}{blank}{value}{goes_on}".encode()

    return entry
