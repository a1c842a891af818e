"""The wanted blocklist, and the quarantine."""

from drf_spectacular.utils import extend_schema, extend_schema_view

from api.errors import Problem
from api.filters import Filter, Rows, Through, equals, identity, instance, one_of, sender
from api.v1.serializers.records import BlockSerializer, QuarantineSerializer
from api.viewsets import ReadViewSet
from fleet.match import Expression, MatchError, parse
from fleet.mta.records import QueueEntry, Recipient
from jobs import selectors
from jobs.clock import db_now
from jobs.models import Block, BlockInstance, BlockState, QuarantineItem, QuarantineState

READ = {"GET": "jobs:read"}
NEWEST = {"-created_at": ("-id",)}
MOST_JUDGED = 5000
PLACES = Through(lambda actor: BlockInstance.objects.all(), "block")
CUSTOMERS = Through(lambda actor: Block.customers.through.objects.all(), "block")


@extend_schema(tags=["records"])
@extend_schema_view(
    list=extend_schema(operation_id="get_blocks", summary="List blocks"),
    retrieve=extend_schema(operation_id="get_block", summary="Show a block"),
)
class Blocks(ReadViewSet):
    """Senders that are wanted blocked, and how far each instance has got."""

    scopes = READ
    serializer_class = BlockSerializer
    lookup_value_converter = "uuid"
    orderings = NEWEST
    filters = {
        "pattern": equals("pattern", "Only this pattern."),
        "state": one_of(
            "state", BlockState.values, "Only with an instance in this state; with `instance`: it.", PLACES
        ),
        "instance": instance("instance__", "Only blocks on this instance, as host/name.", PLACES),
        "customer": equals("customer__slug", "Only blocks that concern this customer.", CUSTOMERS),
    }

    def get_queryset(self) -> Rows:
        return selectors.visible_blocks(self.actor)


def _expression(text: str) -> Expression:
    try:
        expression = parse(text)
    except MatchError as error:
        raise ValueError(str(error)) from error
    if expression.needs_headers or expression.needs_body:
        raise ValueError("of a quarantined message only the envelope is known here")
    return expression


def _matching(rows: Rows, expression: Expression) -> Rows:
    judge = expression.compile(db_now().timestamp())
    newest = rows.order_by("-id")[: MOST_JUDGED + 1]
    if len(newest) > MOST_JUDGED:
        raise Problem(422, "too_broad", f"more than {MOST_JUDGED} messages to judge; narrow them by job or instance")
    return rows.filter(pk__in=[row.pk for row in newest if judge(_entry(row))])


def _entry(row: QuarantineItem) -> QueueEntry:
    recipients = [Recipient(address) for address in row.recipients]
    return QueueEntry(
        row.queue_id, row.native_state, row.native_state, row.arrival_time, row.sender, recipients, row.size
    )


@extend_schema(tags=["records"])
@extend_schema_view(
    list=extend_schema(operation_id="get_quarantine", summary="List quarantined messages"),
    retrieve=extend_schema(operation_id="get_quarantine_item", summary="Show a quarantined message"),
)
class Quarantine(ReadViewSet):
    """Messages that were taken out of queues."""

    scopes = READ
    serializer_class = QuarantineSerializer
    lookup_value_converter = "uuid"
    orderings = NEWEST
    filters = {
        "job": identity("job_id", "Only those that this job took out."),
        "instance": instance("instance__", "Only those of this instance, as host/name."),
        "state": one_of("state", QuarantineState.values, "Only those in this state."),
        "sender": sender("Only those from this address, whatever the case of its letters; <> has none."),
        "match": Filter("Only those that this expression of the selection language selects.", _matching, _expression),
    }

    def get_queryset(self) -> Rows:
        return selectors.visible_quarantine(self.actor)
