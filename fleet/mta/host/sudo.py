"""sudo's own words: which of them say that it refused, so that nothing ran, and which are only warnings."""

import re

from fleet.mta.steps import Completed

# sudo 1.8 to 1.9 (logging.c, sudo.c, exec.c, auth/sudo_auth.c, the sudoers plugin) and sudo-rs. Of other words, such as
# "unable to resolve host" or "setrlimit", the command may have run all the same.
REFUSAL = re.compile(
    rb"^(?:"
    rb"sudo(?:-rs)?: (?:"
    rb".*a password is required|.*a terminal is required|no tty present|.*must have a tty|no askpass program|"
    rb"sorry, you are not allowed|.*no new privileges|.*must be owned by uid 0|.*must be setuid root|"
    rb"effective uid is not 0|no valid sudoers sources|unable to (?:open|stat|read) \S*/sudoers|"
    rb"\S*/sudoers(?:\.d/\S+)?(?: is |:\d+)|account validation failure|Account (?:or password|has) (?:is )?expired|"
    rb"PAM |pam_|policy plugin failed|unknown (?:user|uid)|\d+ incorrect password|.*command not found|"
    rb"unable to execute |interactive authentication is required|Authentication |I'm sorry"
    rb")"
    rb"|Sorry, user \S+ is not allowed to execute |\S+ is not (?:in the sudoers file|allowed to run sudo)"
    rb")[^\n]*",
    re.MULTILINE,
)
LAST = re.compile(rb"sudo(?:-rs)?: |Sorry, user |\S+ is not (?:in the sudoers file|allowed to run sudo)|This incident ")
"""How what sudo says ends when it refused. Words behind that are the command's, which ran: a profile may call sudo."""
REFUSED = 1
"""sudo(8): its exit status when it does not run the command; the command's own may be the same."""


def refusal_of(done: Completed) -> str:
    """sudo's word that it ran nothing, or "". What printed something did run."""
    last = done.stderr.rstrip().rpartition(b"\n")[2]
    if done.exit_status != REFUSED or done.stdout or done.result is not None or not LAST.match(last):
        return ""
    found = REFUSAL.search(done.stderr)
    return found[0].decode("utf-8", "backslashreplace")[:500] if found else ""
