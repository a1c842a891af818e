"""How many people must agree: a job's blast radius against rules. PURE.

A rule fits when customers, operation and everything in `when` fit; of those that fit the strictest counts (most
approvals, then first by name), so a stored rule can only ask for more than the defaults. An undo is known to rules as
`undo.OPERATION`, so that no default asks anything of it, and only a rule that names it (`undo.*`, `*`) does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

APPROVAL_TTL = 3600
EXECUTION_TTL = 1800


@dataclass(frozen=True, slots=True)
class QueueShare:
    """How many messages of one queue were selected, of how many when the plan was made; whose queue it is."""

    selected: int
    total: int
    instance: str = "one queue"

    @property
    def fraction(self) -> float:
        """0 to 1; all of a queue of which nobody knows how much it holds."""
        return self.selected / max(self.total, self.selected, 1)


NO_QUEUES = (QueueShare(0, 0),)


@dataclass(frozen=True, slots=True)
class Blast:
    """What a job may touch. `customers`: slugs; `mode`: of purge, else "".

    `wiring`: a sender check is wired for the first time. `domain_wide`: more senders than one address are blocked.
    """

    operation: str
    customers: tuple[str, ...] = ()
    hosts: int = 1
    queues: tuple[QueueShare, ...] = ()
    match_all: bool = False
    mode: str = ""
    wiring: bool = False
    domain_wide: bool = False
    is_undo: bool = False

    @property
    def messages(self) -> int:
        return sum(queue.selected for queue in self.queues)

    @property
    def named(self) -> str:
        """The operation as rules name it."""
        return f"undo.{self.operation}" if self.is_undo else self.operation


@dataclass(frozen=True, slots=True)
class When:
    """Conditions, all of which must hold; None asks nothing. `min_*` begins at that number, `above_*` beyond it.

    `min_fraction`, `above_fraction`: of any one queue (0 to 1), of which at least `min_queue_messages` are selected.
    """

    min_hosts: int | None = None
    min_messages: int | None = None
    min_fraction: float | None = None
    above_fraction: float | None = None
    min_queue_messages: int = 0
    match_all: bool | None = None
    mode: str | None = None
    wiring: bool | None = None
    domain_wide: bool | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy. `customers` None: all; `operations`: globs; `role`: whose holders may decide; both TTLs in seconds."""

    name: str
    operations: tuple[str, ...]
    when: When = When()
    approvals: int = 1
    customers: tuple[str, ...] | None = None
    role: str = "approver"
    approval_ttl: int = APPROVAL_TTL
    execution_ttl: int = EXECUTION_TTL


@dataclass(frozen=True, slots=True)
class Verdict:
    """`approvals` needed by `role`; `rule` is the name of the one that counts ("" when none fits), `why` a sentence."""

    approvals: int
    rule: str
    why: str
    role: str = "approver"
    approval_ttl: int = APPROVAL_TTL
    execution_ttl: int = EXECUTION_TTL


TAKING = ("queue.purge", "queue.bounce", "queue.requeue")
SELECTING = (*TAKING, "queue.hold", "queue.release", "queue.flush")
"""What selects messages of a queue. message.deliver names one; quarantine.* name what no queue holds."""
CHANGING = (
    *SELECTING,
    "quarantine.restore",
    "quarantine.erase",
    "sender.block",
    "sender.unblock",
)

DEFAULT_RULES = (
    Rule("default-many-messages", TAKING, When(min_messages=101)),
    Rule("default-many-queues", TAKING, When(min_hosts=6)),
    Rule("default-large-share", SELECTING, When(above_fraction=0.2, min_queue_messages=21)),
    Rule("default-delete", ("queue.purge",), When(mode="delete")),
    Rule("default-erase", ("quarantine.erase",)),
    Rule("default-match-all", CHANGING, When(match_all=True)),
    Rule("default-wiring", CHANGING, When(wiring=True)),
    Rule("default-domain-wide", ("sender.block",), When(domain_wide=True)),
    Rule("default-many-hosts", CHANGING, When(min_hosts=11)),
)
"""Reading and `message.deliver` are in no rule, so nobody has to approve."""

POLICY_CHANGE = Rule("default-policy-change", ("policy.change",))


def effective(stored: Iterable[Rule]) -> tuple[Rule, ...]:
    """The defaults and the stored rules. As soon as a stored one asks for approval, so does changing the policies."""
    rules = tuple(stored)
    asks_approval = any(rule.approvals for rule in rules)
    return (*DEFAULT_RULES, *rules, *((POLICY_CHANGE,) if asks_approval else ()))


def decide(blast: Blast, rules: Iterable[Rule]) -> Verdict:
    """What the strictest rule that fits asks for; without one, nothing."""
    fitting = [rule for rule in rules if fits(rule, blast)]
    if not fitting:
        return Verdict(0, "", f"{blast.named}: no rule asks for approval")
    rule = min(fitting, key=lambda rule: (-rule.approvals, rule.name))
    reasons = ", ".join(_reasons(rule.when, blast)) or "whatever it touches"
    return Verdict(
        approvals=rule.approvals,
        rule=rule.name,
        why=f"{blast.named}: {reasons}",
        role=rule.role,
        approval_ttl=rule.approval_ttl,
        execution_ttl=rule.execution_ttl,
    )


def fits(rule: Rule, blast: Blast) -> bool:
    """Whether the rule speaks of this job."""
    return (
        (rule.customers is None or not set(rule.customers).isdisjoint(blast.customers))
        and any(fnmatchcase(blast.named, glob) for glob in rule.operations)
        and _holds(rule.when, blast)
    )


def _holds(when: When, blast: Blast) -> bool:
    return (
        (when.min_hosts is None or blast.hosts >= when.min_hosts)
        and (when.min_messages is None or blast.messages >= when.min_messages)
        and any(_is_large(when, queue) for queue in blast.queues or NO_QUEUES)
        and when.match_all in (None, blast.match_all)
        and when.mode in (None, blast.mode)
        and when.wiring in (None, blast.wiring)
        and when.domain_wide in (None, blast.domain_wide)
    )


def _is_large(when: When, queue: QueueShare) -> bool:
    return (
        (when.min_fraction is None or queue.fraction >= when.min_fraction)
        and (when.above_fraction is None or queue.fraction > when.above_fraction)
        and queue.selected >= when.min_queue_messages
    )


def _reasons(when: When, blast: Blast) -> Iterable[str]:
    if when.min_hosts is not None:
        yield f"{blast.hosts} hosts (rule: {when.min_hosts} or more)"
    if when.min_messages is not None:
        yield f"{blast.messages} messages (rule: {when.min_messages} or more)"
    if when.min_fraction is not None or when.above_fraction is not None or when.min_queue_messages:
        largest = max(
            (queue for queue in blast.queues or NO_QUEUES if _is_large(when, queue)), key=lambda queue: queue.fraction
        )
        yield f"{largest.selected} of the {largest.total} messages of {largest.instance}, {largest.fraction:.1%}"
    if when.match_all:
        yield "every message is matched"
    if when.mode is not None:
        yield f"mode {when.mode}"
    if when.wiring:
        yield "the sender check is wired for the first time"
    if when.domain_wide:
        yield "more senders than one address are blocked"
