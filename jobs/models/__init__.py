"""Rows and constraints; the workflow is in jobs.lifecycle."""

from jobs.models.accounts import Account, AccountKind, Role, RoleName
from jobs.models.audit_event import AuditChain, AuditCheckpoint, AuditEvent
from jobs.models.block import Block, BlockInstance, BlockState
from jobs.models.job import (
    OPEN_RUNS,
    Approval,
    Decision,
    FrozenPlan,
    HostLease,
    Job,
    JobDetails,
    JobEvent,
    Message,
    Run,
    Thinned,
)
from jobs.models.pause import Pause
from jobs.models.quarantine import QuarantineItem, QuarantineState
from jobs.models.tally import Tally, TallyKind
from jobs.models.worker import WorkerLiveness
from jobs.rules.state import JobState, RunState

__all__ = [
    "OPEN_RUNS",
    "Account",
    "AccountKind",
    "Approval",
    "AuditChain",
    "AuditCheckpoint",
    "AuditEvent",
    "Block",
    "BlockInstance",
    "BlockState",
    "Decision",
    "FrozenPlan",
    "HostLease",
    "Job",
    "JobDetails",
    "JobEvent",
    "JobState",
    "Message",
    "Pause",
    "QuarantineItem",
    "QuarantineState",
    "Role",
    "RoleName",
    "Run",
    "RunState",
    "Tally",
    "TallyKind",
    "Thinned",
    "WorkerLiveness",
]
