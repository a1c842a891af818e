"""What can go wrong between us and an MTA instance. One tree; the code is what the API shows.

FleetError
├── NothingSent                 no byte of a command reached the host
│   ├── Unreachable             unreachable
│   ├── HostKeyMismatch         host_key_mismatch
│   ├── AuthFailed              auth_failed
│   ├── LoginShell              login_shell
│   └── LeaseLost               lease_lost: the run was taken from this worker before its change was sent
├── ConnectionLost              connection_lost: the connection ended while a reading command ran
├── OutcomeUnknown              timeout: connection or deadline ended while a changing command ran
└── Refused                     the host answered, and it could not be done
    ├── SudoDenied              sudo_denied
    ├── MtaNotFound             mta_not_found
    ├── MtaNotRunning           mta_not_running
    ├── MessageNotFound         message_not_found
    ├── InDelivery              in_delivery
    ├── Unsupported             unsupported
    ├── RemoteTimeout           timeout: a reading command did not end in its time
    ├── OutputTooLarge          output_too_large
    ├── UnparsedOutput          unparsed_output
    ├── Conflict                conflict
    ├── Overtaken               overtaken: a newer worker has the host; this command changed nothing
    ├── DiskFull                disk_full
    ├── TooMany                 too_many
    ├── PlanStale               plan_stale
    ├── NeedsWiring             needs_wiring
    └── RemoteError             remote_error
"""

from typing import Any, ClassVar


class FleetError(Exception):
    """Base: `code` as in the API, `detail` for people, `hint` what to do about it, `data` JSON values beside.

    `is_put_right`: what was changed before it is as it was again.
    """

    code: ClassVar[str] = "remote_error"

    def __init__(self, detail: str, *, hint: str = "", **data: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.data = data
        self.is_put_right = False

    def as_dict(self) -> dict[str, Any]:
        """`error` of a run: code, detail, hint and what else is known."""
        return {"code": self.code, "detail": self.detail, "hint": self.hint, **self.data}


class NothingSent(FleetError):
    """No byte of a command reached the host, so trying again is safe."""

    code = "unreachable"


class Unreachable(NothingSent):
    """No connection: closed port, no route, no answer in time."""


class HostKeyMismatch(NothingSent):
    """The host showed another key than the pinned one, or a certificate that its CA did not sign for it."""

    code = "host_key_mismatch"


class AuthFailed(NothingSent):
    """The host refused our credential."""

    code = "auth_failed"


class LoginShell(NothingSent):
    """The account's login shell is no POSIX shell, so nothing can be quoted safely for it."""

    code = "login_shell"


class LeaseLost(NothingSent):
    """The worker's lease of the run has ended before this changing command was sent. It says nothing about the host."""

    code = "lease_lost"


class ConnectionLost(FleetError):
    """The connection ended, again and again, while commands that only read ran; nothing was changed."""

    code = "connection_lost"


class OutcomeUnknown(FleetError):
    """Connection or deadline ended while a changing command ran. Never "failed", never repeated blindly."""

    code = "timeout"


class Refused(FleetError):
    """The host answered, and it could not be done."""


class SudoDenied(Refused):
    """sudo wanted a password or has no rule for the command."""

    code = "sudo_denied"


class MtaNotFound(Refused):
    """The MTA's programs or configuration are not where they were."""

    code = "mta_not_found"


class MtaNotRunning(Refused):
    """The MTA is installed and stopped."""

    code = "mta_not_running"


class MessageNotFound(Refused):
    """No message of that queue ID (or fingerprint) is queued."""

    code = "message_not_found"


class InDelivery(Refused):
    """The MTA is delivering the message right now; it was left alone."""

    code = "in_delivery"


class Unsupported(Refused):
    """This MTA cannot do it; known before any connection is made."""

    code = "unsupported"


class RemoteTimeout(Refused):
    """A reading command did not end in its time."""

    code = "timeout"


class OutputTooLarge(Refused):
    """The command printed more than its limit; what came was cut and is not judged."""

    code = "output_too_large"


class UnparsedOutput(Refused):
    """The output is not what this MTA prints, or was cut off; nothing was guessed from it."""

    code = "unparsed_output"


class Conflict(Refused):
    """Something else stands in the way: a foreign line, a changed file, a wrong state."""

    code = "conflict"


class Overtaken(Refused):
    """The host has seen a command of a newer worker, and refused ours; this command changed nothing."""

    code = "overtaken"


class DiskFull(Refused):
    """The host's file system is full; the old file is as it was."""

    code = "disk_full"


class TooMany(Refused):
    """More messages than params.max_messages or params.max_fraction allow."""

    code = "too_many"


class PlanStale(Refused):
    """Nothing of the plan is left, or one of its queue IDs now names another message."""

    code = "plan_stale"


class NeedsWiring(Refused):
    """The instance checks no senders yet, and the plan that was applied did not contain the wiring."""

    code = "needs_wiring"


class RemoteError(Refused):
    """The host's own words, when no better name fits."""
