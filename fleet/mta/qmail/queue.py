"""qmail's queue, read from its files while qmail-send runs or not."""

from collections.abc import Iterable

from fleet.mta.errors import Conflict, OutcomeUnknown, Refused
from fleet.mta.host.commands import LISTING_SECONDS, error_of, reading
from fleet.mta.qmail.commands import CONTENT, LIST, change, ids_input
from fleet.mta.qmail.parse import QueueSink, parse_contents
from fleet.mta.qmail.virtual import Virtual
from fleet.mta.queue.content import HEADERS, Content
from fleet.mta.queue.listing import FIELDS, Consumer, Listing, Queue, WholeConsumer
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Steps, run

BUSY = 75
CUT_OFF = (
    "a change was cut off on this host, and it could not be put right: qmail-send may be down and messages half moved;"
    " `svc -u` on its service starts it, and the next change or look into the quarantine puts the rest right"
)


def read_queue(instance: InstanceFacts, take: Consumer | WholeConsumer, limits: bytes = b"") -> Steps[Listing]:
    """Every message, handed to `take` while the listing streams in. Raises UnparsedOutput, SudoDenied and others.

    `limits`: of the headers that are read with them, none are without, and queue IDs; all messages are read without.

    What a change left that was cut off together with its guardian is put right first. Where that cannot be, the queue
    is listed all the same, with a note; while files are half moved, it proves no absence (`refused`).
    """
    listing, cut = yield from _list(instance, take, limits)
    if not cut:
        return listing
    settled, why = yield from _settle(instance)
    listing, cut = yield from _list(instance, take, limits, "anyway")
    notes = [f"{CUT_OFF}{why}"] if cut else settled
    return Listing(listing.total, listing.refused + (cut == "acting"), (*listing.notes, *notes))


def read_headers(instance: InstanceFacts, take: WholeConsumer) -> Steps[Listing]:
    """Every message with its header: 64 KiB of each, of all of them 128 MiB."""
    return (yield from read_queue(instance, take, f"{HEADERS} {128 << 20}\n".encode()))


def read_named(instance: InstanceFacts, queue_ids: Iterable[str], take: Consumer) -> Steps[Listing]:
    """What is queued of these messages alone, held ones too."""
    return (yield from read_queue(instance, take, b"0 0\n" + ids_input(queue_ids) + b"end\n"))


def _list(
    instance: InstanceFacts, take: Consumer | WholeConsumer, limits: bytes, *how: str
) -> Steps[tuple[Listing, str]]:
    sink = QueueSink(take, Virtual.of(instance))
    command = reading(LIST, (instance.queue_dirs[0], *how), limits, seconds=LISTING_SECONDS, sink=sink)
    done = yield from run(command)
    if done.exit_status == BUSY:
        message = done.stderr.decode("utf-8", "backslashreplace").strip()
        raise Conflict(f"the queue cannot be read now: {message}", hint="try again in a minute")
    if done.exit_status:
        raise error_of(done, LIST)
    listing: Listing = done.result
    return listing, sink.cut


def _settle(instance: InstanceFacts) -> Steps[tuple[tuple[str, ...], str]]:
    """Lets the change script put right what was cut off. What it tells people, and why it could not, if so."""
    try:
        answer = yield from change(instance, "look", "", ())
    except (Refused, OutcomeUnknown) as error:
        return (), f": {error.detail}"
    return answer.notes, ""


HEADERS_AND_BODIES = Content(
    CONTENT,
    lambda instance: (instance.queue_dirs[0],),
    batch=5_000,
    headers_batch=5_000,
    parse=parse_contents,
    before_body=HEADERS,
)
# No `reason`, no attempts: qmail keeps neither, its log alone tells them.
QUEUE = Queue("qmail", FIELDS - {"reason"}, read_queue, HEADERS_AND_BODIES, read_headers, read_named)
