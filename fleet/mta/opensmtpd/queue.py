"""OpenSMTPD's queue, as `smtpctl show queue` lists it, with the sizes of the message files."""

from fleet.mta.errors import Unsupported
from fleet.mta.opensmtpd.commands import CONTENT, listing, places
from fleet.mta.opensmtpd.parse import QueueSink, error_of
from fleet.mta.queue.content import Content
from fleet.mta.queue.listing import FIELDS, Consumer, Listing, Queue
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Steps, run


def read_queue(instance: InstanceFacts, take: Consumer) -> Steps[Listing]:
    """Every message of the queue, handed to `take` while the listing streams in.

    Raises UnparsedOutput for a listing without its end: an empty one has it too.
    """
    done = yield from run(listing(instance, QueueSink(take)))
    if done.exit_status or b"smtpctl:" in done.stderr:  # its own words: it could not read all
        raise error_of(done, "smtpctl")
    result: Listing = done.result
    return result.noted("smtpctl")


def check_readable(instance: InstanceFacts) -> None:
    """Raises Unsupported for an encrypted queue."""
    if instance.options.get("is_encrypted"):
        raise Unsupported("the queue is encrypted: nobody reads a message without its key")


HEADERS_AND_BODIES = Content(
    CONTENT,
    places,
    batch=2_000,
    headers_batch=2_000,
    error_of=error_of,
    check=check_readable,
    separator=(b"\r", b"\n"),
)
QUEUE = Queue("OpenSMTPD", FIELDS | {"attempts"}, read_queue, HEADERS_AND_BODIES)
