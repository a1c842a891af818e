"""Lists and configurations in directories of a test, edited by our own scripts with stand-ins for the MTAs' programs.

Between any two steps of a script somebody else can do something: every program that it calls to look at or to change a
file counts itself in first, and one of them, by number, waits for what the hook says.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fleet.mta.steps import Command, Completed
from fleet.ssh.quoting import stdin_of
from tests.unit.real_scripts import argv_of

OTHER = 65533
"""Some account that is neither root nor ours."""
STEPS = "cp find ln makemap mktemp mv perl postmap python3 rm rmdir smtpctl stat sync systemctl"
"""The programs that are counted: none of them runs beside another one."""
COUNT = """#!/bin/sh
PATH=/usr/bin:/usr/sbin
read -r when at <{tools}/when
at=$((at + 1))
echo "$when $at" >{tools}/when
echo "${{0##*/}}" >>{tools}/steps
[ "$at" != "$when" ] || sh {tools}/hook >>{tools}/hooked 2>&1
program={tools}/real/${{0##*/}}
[ -e "$program" ] || program=/usr/bin/${{0##*/}}
exec "$program" "$@"
"""
WITHOUT = """#!/bin/sh
case {0}$1 in mv--exchange | perl-e | python3-I) exit 1 ;; esac
exec /usr/bin/{0} "$@"
"""
PROGRAMS = {
    "real/makemap": """#!/bin/sh
[ "$1" != -C ] || shift 2
if [ "$1" = -u ]; then exec cat "$3.db"; fi
umask 027
grep -v '^#' | tr A-Z a-z | sed 's/reject/REJECT/' >"$2.db"
""",
    "real/postmap": """#!/bin/sh
shift 2
case $1 in
-q) grep "^$2	" "${3#*:}.db" | cut -f 2 | grep . ;;
-s) cat "${2#*:}.db" ;;
*) umask 022; grep -v '^#' <"${1#*:}" >"${1#*:}.db" ;;
esac
""",
    "postconf": """#!/bin/sh
[ "$1" != -c ] || { config=$2; shift 2; }
case $* in
'-h config_directory') echo {config} ;;
'-h smtpd_sender_restrictions') sed -n 's/^smtpd_sender_restrictions = //p' "$config/main.cf" ;;
'-xh smtpd_sender_restrictions') echo "check_sender_access hash:{place}/list" ;;
-n) cat "$config/main.cf" ;;
esac
""",
    "postfix": "#!/bin/sh\n",
    "real/smtpctl": "#!/bin/sh\n",
    "real/systemctl": "#!/bin/sh\n[ $1 != status ] || echo '* smtpd.service'\n",
    "ps": """#!/bin/sh
if [ $1 = -p ]; then echo systemd; else echo $(/usr/bin/cut -d ' ' -f 6 /proc/$PPID/stat) 1 smtpd; fi
""",
    "sleep": "#!/bin/sh\n",
}


def digest_of(text: str) -> str:
    """Of a file, as the scripts say it; "" is no file."""
    return sha256(text.encode()).hexdigest() if text else "-"


@dataclass
class Edited:
    """A change of the file `list` from `old` to `new`, "" being no file.

    `place`: its directory, in which `beside` are too; `owner`: whose that is, and the list.
    """

    tools: Path
    list: Path
    script: str
    words: tuple[str, ...]
    head: str
    old: str
    new: str
    has_map: bool = False
    is_wiring: bool = False
    beside: tuple[str, ...] = ()
    owner: int = OTHER

    @property
    def place(self) -> Path:
        return self.list.parent

    @property
    def map(self) -> Path:
        return Path(f"{self.list}.db")

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.list, self.map) if self.has_map else (self.list,)

    def run(self, when: int = 0, hook: str = "", digest: str = "") -> Completed:
        """The change, with the shell text `hook` run in `place` before the step of that number; 0 is none.

        `digest`: of the file as it was planned with, where that is not `old`.
        """
        for name, text in (
            ("steps", ""),
            ("when", f"{when} 0\n"),
            ("hook", f"cd {self.place}\n{hook}\n"),
            ("hooked", ""),
        ):
            (self.tools / name).write_text(text)
        digests = {
            "digest": digest or digest_of(self.old),
            "new": digest_of(self.new),
        }
        stdin = self.head.format(**digests) + ("" if self.is_wiring else self.new)
        return self._run(Command(self.words, script=self.script, stdin=stdin.encode(), mutates=True))

    def ask(self, action: str, stdin: str = "") -> Completed:
        """Another action of the script, which changes nothing."""
        (self.tools / "when").write_text("0")
        return self._run(Command((action, *self.words[1:]), script=self.script, stdin=stdin.encode()))

    def _run(self, command: Command) -> Completed:
        argv = argv_of(command, self.tools)
        done = subprocess.run(
            argv, input=stdin_of(command), capture_output=True, timeout=60, check=False, start_new_session=True
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def steps(self) -> list[str]:
        """The programs of the last run, in order."""
        return (self.tools / "steps").read_text().split()

    def reset(self) -> None:
        """The directory as it was at first."""
        shutil.rmtree(self.place)
        self.place.mkdir(mode=0o755)
        for path in self.files if self.old else ():
            path.write_text(self.old)
            path.chmod(0o640)
            os.utime(path, (1, 1))
            os.chown(path, 0 if self.is_wiring else self.owner, self.owner)
        for name in self.beside:
            (self.place / name).write_text("")
        os.chown(self.place, self.owner, self.owner)

    def backups(self) -> set[str]:
        return {path.read_text() for path in self.place.glob(f"{self.list.name}.mxfleet-[0-9]*")}

    def leftovers(self) -> list[str]:
        """Names that are neither the list's nor those of backups."""
        kept = [*self.beside, *(path.name for path in self.files)]
        found = (path.name for path in self.place.iterdir())
        return [name for name in found if name not in kept and not name.startswith(f"{self.list.name}.mxfleet-2")]


PLAIN = ("his@x.test\n", "his@x.test\nnew@x.test\n")
MAP = ("from:his@x.test\tREJECT\n", "from:his@x.test\tREJECT\nfrom:new@x.test\tREJECT\n")
MAIN_CF = ("myhostname = x\n", "myhostname = x\nsmtpd_sender_restrictions = {}\n")


def exim(base: Path) -> Edited:
    (base / "etc/exim.conf").write_text(f"senders = {base}/maps/list\n")
    words = ("apply", "exim", f"{base}/etc/exim.conf", f"{base}/maps/list", "-")
    return Edited(base / "tools", base / "maps/list", "block_file.sh", words, "{digest}\nwrite {new}\n0\n", *PLAIN)


def exim_removal(base: Path) -> Edited:
    edited = exim(base)
    edited.head, edited.new = "{digest}\nremove\n0\n", ""
    return edited


CHECKS = "2\nfrom:his@x.test\tREJECT\nfrom:new@x.test\tREJECT\n"


def sendmail(base: Path) -> Edited:
    (base / "etc/sendmail.cf").write_text(f"Kaccess hash -T<TMPF> {base}/maps/list\n")
    words = ("apply", "sendmail", f"{base}/etc/sendmail.cf", f"{base}/maps/list", "hash")
    head = "{digest}\nwrite {new}\n" + CHECKS
    return Edited(base / "tools", base / "maps/list", "block_file.sh", words, head, *MAP, has_map=True)


def postfix(base: Path) -> Edited:
    words = ("apply", "postfix", f"{base}/etc", f"{base}/maps/list", "hash")
    head = "{digest}\nwrite {new}\n" + CHECKS
    return Edited(base / "tools", base / "maps/list", "block_file.sh", words, head, *MAP, has_map=True)


def postfix_wiring(base: Path) -> Edited:
    old, new = MAIN_CF
    new = new.format(f"check_sender_access hash:{base}/maps/mxfleet_senders")
    words = ("apply", f"{base}/maps", "hash")
    made = Edited(base / "tools", base / "maps/main.cf", "postfix_wire.sh", words, "{digest}\n{new}\n", old, new)
    made.beside, made.owner = ("master.cf",), 0  # a configuration must be root's own
    return made


def opensmtpd_wiring(base: Path) -> Edited:
    (base / "etc/smtpd").write_text("#!/bin/sh\n")
    (base / "etc/smtpd").chmod(0o755)
    old = "match for any action x\n"
    words = ("wire", f"{base}/etc/smtpd", f"{base}/maps/smtpd.conf")
    made = Edited(base / "tools", base / "maps/smtpd.conf", "opensmtpd_wire.sh", words, "{digest} 1\n", old, "")
    made.new = f"""# BEGIN mxfleet
table mxfleet_senders file:{base}/maps/mxfleet_senders
match from any mail-from <mxfleet_senders> for any reject
# END mxfleet
{old}"""
    made.is_wiring, made.beside = True, ("mxfleet_senders",)
    return made


EDITED: dict[str, Callable[[Path], Edited]] = {
    each.__name__: each for each in (exim, exim_removal, sendmail, postfix, postfix_wiring, opensmtpd_wiring)
}


def sendmail_creation(base: Path) -> Edited:
    made = sendmail(base)
    made.old = ""
    return made


def postfix_creation(base: Path) -> Edited:
    made = postfix(base)
    made.old = ""
    return made


def postfix_removal(base: Path) -> Edited:
    made = postfix(base)
    made.list = base / "maps/mxfleet_senders"
    made.words = ("apply", "postfix", f"{base}/maps", str(made.list), "hash")
    made.head, made.new, made.beside = "{digest}\nremove\n0\n", "", ("main.cf", "master.cf")
    made.owner = 0  # the configuration is there too, and must be root's own
    return made


def opensmtpd(base: Path) -> Edited:
    table = f"table blocked file:{base}/maps/list\nmatch from any mail-from <blocked> for any reject\n"
    (base / "etc/smtpd.conf").write_text(table)
    words = ("apply", "opensmtpd", f"{base}/etc/smtpd.conf", f"{base}/maps/list", "blocked")
    return Edited(base / "tools", base / "maps/list", "block_file.sh", words, "{digest}\nwrite {new}\n0\n", *PLAIN)


MAPS: dict[str, Callable[[Path], Edited]] = {
    each.__name__: each for each in (sendmail, postfix, sendmail_creation, postfix_creation, postfix_removal)
}
"""The changes of a file and the map that is built of it."""


@contextmanager
def edited(kind: str, without: tuple[str, ...] = ()) -> Iterator[Edited]:
    """A change of that kind in a directory that any account can reach. `without`: ways to exchange that do not work."""
    base = Path(tempfile.mkdtemp(prefix="mxfleet-edited-", dir="/tmp"))
    try:
        base.chmod(0o755)
        for name in ("tools/real", "maps", "etc"):
            (base / name).mkdir(parents=True, mode=0o755)
        config = base / ("maps" if kind in ("postfix_wiring", "postfix_removal") else "etc")
        texts = {
            name: text.replace("{config}", str(config)).replace("{place}", f"{base}/maps")
            for name, text in PROGRAMS.items()
        }
        texts |= dict.fromkeys(STEPS.split(), COUNT.format(tools=base / "tools"))
        texts |= {f"real/{name}": WITHOUT.format(name) for name in without}
        for name, text in texts.items():
            (base / "tools" / name).write_text(text)
            (base / "tools" / name).chmod(0o755)
        for name in ("main.cf", "master.cf"):
            (base / "etc" / name).write_text("")
        made = {**EDITED, **MAPS, "opensmtpd": opensmtpd}[kind](base)
        made.reset()
        yield made
    finally:
        shutil.rmtree(base)
