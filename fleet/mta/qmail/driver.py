"""How messages are changed: by one run of qmail_change.sh, which names the messages by fingerprint again.

What is in delivery cannot be seen in the files, and need not be: files change only while qmail-send is down, and it
goes down only when no delivery runs.
"""

from functools import partial

from fleet.mta.errors import InDelivery, Unsupported
from fleet.mta.operations import ChangesMessages, QueueBounce
from fleet.mta.qmail.attempt_log import DELIVERED, attempts_of, check_watchable, returned, watch
from fleet.mta.qmail.change_script import NOT_STOPPED, STOPS, Answer, change, reasons
from fleet.mta.qmail.commands import change_argv
from fleet.mta.qmail.queue import QUEUE, proof
from fleet.mta.queue.driver import Act, QueueDriver, Said
from fleet.mta.queue.outcome import Chosen, Verb, Word, names, same
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.steps import Steps

AWAY = (
    "held means: moved to mxfleet-hold/ in the queue directory, unseen by qmail's own tools; queuelifetime goes on, so"
    " what is older is attempted once more after its release, and then bounced"
)
LAST_ATTEMPT = (
    "qmail bounces after one last attempt: where that succeeds, the message is delivered; mail of the null sender goes"
    " to doublebounceto, that of #@[] is discarded"
)
ACTIONS = {
    Verb.HOLD: "hold",
    Verb.RELEASE: "release",
    Verb.DELETE: "delete",
    Verb.TAKE_OUT: "quarantine",
    Verb.BOUNCE: "bounce",
}
NOTES = {Verb.HOLD: (STOPS, AWAY), Verb.BOUNCE: (STOPS, LAST_ATTEMPT)}


def check(instance: InstanceFacts, verb: Verb, operation: ChangesMessages) -> None:
    """Raises Unsupported for a bounce that must not notify, or where there is no log to read."""
    if isinstance(operation, QueueBounce):
        if not operation.notify:
            raise Unsupported("qmail always notifies the sender of a bounce")
        check_watchable(instance)


def act(instance: InstanceFacts, verb: Verb, operation: ChangesMessages, context: Context, chosen: Chosen) -> Act:
    """Into mxfleet-hold/, out of qmail's sight, and back; deleted, or into mxfleet-quarantine/JOB/; made due, and older
    than queuelifetime. The time of the next attempt comes back too, and what lies in todo/ or is held is taken as well.
    """
    what = instance, context.job, chosen.entries
    run = partial(_bounced, *what) if verb is Verb.BOUNCE else partial(_changed, *what, verb=verb)
    return Act([change_argv(instance, ACTIONS[verb])], run, NOTES.get(verb, (STOPS,)))


def _changed(instance: InstanceFacts, job: str, entries: tuple[QueueEntry, ...], *, verb: Verb) -> Steps[Said]:
    """The script holds its locks until its last part has ended, so what it says of the quarantine is so."""
    answer = yield from change(instance, ACTIONS[verb], job, entries)
    places = {name: place(instance, job, name) for name in answer.are("done")} if verb is Verb.TAKE_OUT else {}
    return _said(answer, places=places)


def _bounced(instance: InstanceFacts, job: str, entries: tuple[QueueEntry, ...]) -> Steps[Said]:
    """qmail-send's next attempt is the last, and its log says "bounce msg ID"."""
    answer = yield from change(instance, ACTIONS[Verb.BOUNCE], job, entries)
    due = [entry for entry in entries if entry.queue_id in answer.are("done")]
    lines = yield from watch(instance, due, answer)
    now = yield from proof(instance, names(entries))
    bounced = returned(lines)
    attempts = {entry.queue_id: attempts_of(lines, entry.queue_id) for entry in due}
    words = dict.fromkeys(answer.are("left"), Word.LEFT)
    for entry in due:
        name = entry.queue_id
        if same(now, entry) is None and name in bounced:
            words[name] = Word.DONE
        elif same(now, entry) is not None:
            words[name] = Word.BUSY if attempts[name] else Word.LEFT
    delivered = [name for name, seen in attempts.items() if any(each.outcome == DELIVERED for each in seen.values())]
    return _said(answer, words, now, delivered=delivered)


def _said(
    answer: Answer,
    words: dict[str, Word] | None = None,
    now: dict[str, QueueEntry] | None = None,
    *,
    places: dict[str, str] | None = None,
    **data: list[str],
) -> Said:
    """Raises OutcomeUnknown when qmail-send was not seen running again."""
    answer.check_running()
    if words is None:
        words = dict.fromkeys(answer.are("left"), Word.LEFT) | dict.fromkeys(answer.are("done"), Word.DONE)
    error = InDelivery(NOT_STOPPED, hint="try again when the delivery has ended", status=answer.status)
    return Said(
        words,
        now,
        places=places or {},
        data={"service": answer.status, "reasons": reasons(answer), **data},
        notes=answer.notes,
        error=error if answer.is_stopping else None,
    )


def place(instance: InstanceFacts, job: str, queue_id: str) -> str:
    """Where a quarantined message lies: mess/, info/ and the others in that job's directory."""
    return f"{instance.queue_dirs[0]}/mxfleet-quarantine/{job}/{queue_id}"


DRIVER = QueueDriver(QUEUE, act, check, bounces_held=False)
