"""Which of our holds are none any more, as reading a whole queue shows: others released the message, or it left."""

from dataclasses import replace

from fleet.mta.queue.content import Stored
from fleet.mta.queue.listing import Consumer, Listing, Queue, StreamedEntry, WholeConsumer
from fleet.mta.queue.outcome import fingerprint_of
from fleet.mta.records import Fingerprint, InstanceFacts
from fleet.mta.steps import Steps


class Holds:
    """Looks at a queue while somebody reads it. `ours`: what our jobs put on hold, as far as is known."""

    def __init__(self, ours: frozenset[Fingerprint]) -> None:
        self._ours = ours
        self._ids = frozenset(each.queue_id for each in ours)
        self._held: set[Fingerprint] = set()
        self._is_whole = False

    @property
    def freed(self) -> tuple[Fingerprint, ...]:
        """Those of ours that are not on hold. None, before a listing that left no message out has ended."""
        return tuple(self._ours - self._held) if self._is_whole else ()

    def watched(self, queue: Queue) -> Queue:
        """The same queue, for whoever reads it."""
        if not self._ours:
            return queue
        read_headers = queue.read_headers

        def read(instance: InstanceFacts, take: Consumer) -> Steps[Listing]:
            def observe(message: StreamedEntry) -> None:
                self._see(message)
                take(message)

            return self._ended((yield from queue.read(instance, observe)))

        def read_with_headers(instance: InstanceFacts, take: WholeConsumer) -> Steps[Listing]:
            def observe(message: StreamedEntry, content: Stored | None = None) -> None:
                self._see(message)
                take(message, content)

            assert read_headers is not None  # noqa: S101 - else this is not the queue's; for the type checker
            return self._ended((yield from read_headers(instance, observe)))

        return replace(queue, read=read, read_headers=read_with_headers if read_headers else None)

    def _see(self, message: StreamedEntry) -> None:
        """A message that moved between queues while it was listed is as it was seen last."""
        if message.queue_id in self._ids:
            (self._held.add if message.state == "hold" else self._held.discard)(fingerprint_of(message))

    def _ended(self, listing: Listing) -> Listing:
        self._is_whole = not listing.refused
        return listing
