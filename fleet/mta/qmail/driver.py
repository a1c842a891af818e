"""How messages are changed: by one run of qmail_change.sh, which names the messages by fingerprint again.

What is in delivery cannot be seen in the files, and need not be: files change only while qmail-send is down, and it
goes down only when no delivery runs.

In the quarantine a message's files lie in mxfleet-quarantine/JOB/ of the queue directory. rename(2) keeps the inode, so
the file in mess/ keeps its number busy: no new message can take its queue ID meanwhile.
"""

from collections.abc import Iterable, Sequence
from functools import partial

from fleet.mta.errors import InDelivery, Unsupported
from fleet.mta.operations import ChangesMessages, Quarantined, QueueBounce
from fleet.mta.qmail.attempt import DELIVERED, attempts_of, check_watchable, returned, watch
from fleet.mta.qmail.commands import NOT_STOPPED, STOPS, Answer, change, change_argv, reasons
from fleet.mta.qmail.parse import queue_id_error
from fleet.mta.qmail.queue import QUEUE
from fleet.mta.queue.driver import Act, Jobs, Move, QueueDriver, Reported, Wanted
from fleet.mta.queue.in_quarantine import Layout
from fleet.mta.queue.outcome import Chosen, Verb, Word, names, same
from fleet.mta.records import Context, InstanceFacts, QueueEntry
from fleet.mta.results.changing import MoreOfChanges
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
NOT_RUNNING = "qmail-send is not running now; `svc -u` on its service starts it"
LAYOUT = Layout("mess/(?P<id>[^/]+)", queue_id_error)
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


def _changed(instance: InstanceFacts, job: str, entries: tuple[QueueEntry, ...], *, verb: Verb) -> Steps[Reported]:
    """The script holds its locks until its last part has ended, so what it says of the quarantine is so."""
    answer = yield from change(instance, ACTIONS[verb], job, entries)
    done = answer.are("done") if verb is Verb.TAKE_OUT else ()
    return _reported(answer, places=LAYOUT.places(instance, job, done))


def _bounced(instance: InstanceFacts, job: str, entries: tuple[QueueEntry, ...]) -> Steps[Reported]:
    """qmail-send's next attempt is the last, and its log says "bounce msg ID"."""
    answer = yield from change(instance, ACTIONS[Verb.BOUNCE], job, entries)
    due = [entry for entry in entries if entry.queue_id in answer.are("done")]
    lines = yield from watch(instance, due, answer)
    now = yield from QUEUE.proof(instance, names(entries))
    bounced = returned(lines)
    attempts = {entry.queue_id: attempts_of(lines, entry.queue_id) for entry in due}
    words = dict.fromkeys(answer.are("left"), Word.LEFT)
    for entry in due:
        name = entry.queue_id
        if same(now, entry) is None and name in bounced:
            words[name] = Word.DONE
        elif same(now, entry) is not None:
            words[name] = Word.BUSY if attempts[name] else Word.LEFT
    delivered = [name for name, tries in attempts.items() if any(each.outcome == DELIVERED for each in tries)]
    return _reported(answer, words, now, delivered=delivered)


def _reported(
    answer: Answer,
    words: dict[str, Word] | None = None,
    now: dict[str, QueueEntry] | None = None,
    *,
    places: dict[str, str] | None = None,
    delivered: list[str] | None = None,
) -> Reported:
    """Raises OutcomeUnknown when qmail-send was not seen running again."""
    answer.check_running()
    if words is None:
        words = dict.fromkeys(answer.are("left"), Word.LEFT) | dict.fromkeys(answer.are("done"), Word.DONE)
    data: MoreOfChanges = {"service": answer.status, "reasons": reasons(answer)}
    if delivered is not None:
        data["delivered"] = delivered
    error = InDelivery(NOT_STOPPED, hint="try again when the delivery has ended", status=answer.status)
    return Reported(
        words,
        now,
        places=places or {},
        data=data,
        notes=answer.notes,
        error=error if answer.is_stopping else None,
    )


def lying(instance: InstanceFacts, job: str, verb: Verb, wanted: Wanted) -> Steps[Reported]:
    """What lies there once what nobody lived to finish is put right, and how qmail-send is.

    Raises Conflict while a change holds the job lock for too long.
    """
    answer = yield from change(instance, "look", job, ())
    there = LAYOUT.places(instance, job, answer.are("there"))
    if verb in (Verb.PUT_BACK, Verb.ERASE):
        return Reported(places=there, notes=answer.notes)
    notes = answer.notes if ": up " in answer.status else (NOT_RUNNING, *answer.notes)
    return Reported(places=there, notes=notes, data={"service": answer.status})


def move(instance: InstanceFacts, verb: Verb, context: Context, jobs: Jobs) -> Move:
    """Back into the queue and due at once, or on hold when it was held. Erased beside qmail-send, which goes on."""
    if verb is Verb.ERASE:
        return Move([change_argv(instance, "erase")], partial(_erased, instance))
    actions = sorted({_restoring(item, context) for items in jobs.values() for item in items})
    return Move([change_argv(instance, each) for each in actions], partial(_brought_back, instance, context), [STOPS])


def _restoring(item: Quarantined, context: Context) -> str:
    if item.state == "hold":
        return "restore-held"
    return "restore" if context.undo else "restore-try"


def _brought_back(instance: InstanceFacts, context: Context, job: str, items: Sequence[Quarantined]) -> Steps[Reported]:
    words: dict[str, Word] = {}
    whole = Reported()
    for action in sorted({_restoring(item, context) for item in items}):
        those = [item for item in items if _restoring(item, context) == action]
        answer = yield from change(instance, action, job, those)
        part = _reported(answer, _words_for(those, answer))
        words |= part.words
        why = {**whole.data.get("reasons", {}), **reasons(answer)}
        whole = Reported(
            words, data={"reasons": why}, notes=(*whole.notes, *part.notes), error=whole.error or part.error
        )
    return whole


def _erased(instance: InstanceFacts, job: str, items: Sequence[Quarantined]) -> Steps[Reported]:
    answer = yield from change(instance, "erase", job, items)
    there = yield from lying(instance, job, Verb.ERASE, {})
    return Reported(_words_for(items, answer), places=there.places, notes=answer.notes)


def _words_for(items: Iterable[Quarantined], answer: Answer) -> dict[str, Word]:
    """No word of a message means that it was left."""
    words = dict.fromkeys((item.queue_id for item in items), Word.LEFT) | dict.fromkeys(answer.are("done"), Word.DONE)
    return {name: word for name, word in words.items() if name not in answer.are("gone")}


DRIVER = QueueDriver(
    QUEUE,
    act,
    LAYOUT,
    lying,
    move,
    frozenset(Verb) - {Verb.ATTEMPT, Verb.REQUEUE},
    check,
    bounces_held=False,
    settles=frozenset({Verb.HOLD, Verb.RELEASE, Verb.DELETE}),
)
