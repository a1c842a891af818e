"""Who acts, by which way, and what he may do where. The same object is checked by the API and by every service."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from django.db.models import QuerySet

from fleet.models import Customer
from jobs.models import Account, RoleName

GRANTS: dict[str, frozenset[str]] = {
    RoleName.VIEWER: frozenset({"read", "request_reading"}),
    RoleName.OPERATOR: frozenset({"read", "request_reading", "request_any"}),
    RoleName.APPROVER: frozenset({"read", "request_reading", "decide"}),
    RoleName.ADMIN: frozenset({"read", "request_reading", "request_any", "decide", "administer"}),
}
"""What a role allows. `decide` never reaches the own job, whoever asks."""


@dataclass(frozen=True)
class Actor:
    """An account behind a token. `scopes` None: all that the roles allow. `source`: the peer's IP address.

    `token`: its id. `within`: slugs of the customers that the token is good for, None: all that the roles name.
    `minted_by`: who else had a hand in the token, by username; empty: only the account's own person.
    """

    account: Account
    scopes: frozenset[str] | None = None
    channel: str = "api"
    source: str = ""
    on_behalf_of: str = field(default="")
    token: UUID | None = None
    within: frozenset[str] | None = None
    minted_by: tuple[str, ...] = ()

    @cached_property
    def _granted(self) -> tuple[dict[str, set[int]], set[str]]:
        by_customer: dict[str, set[int]] = {}
        everywhere: set[str] = set()
        bounds = self._bounds
        for row in self.account.roles.all():
            named = {row.customer_id} if row.customer_id is not None else bounds
            for grant in GRANTS[row.role]:
                if named is None:
                    everywhere.add(grant)
                else:
                    by_customer.setdefault(grant, set()).update(named if bounds is None else named & bounds)
        return by_customer, everywhere

    @cached_property
    def _bounds(self) -> set[int] | None:
        if self.within is None:
            return None
        return set(Customer.objects.filter(slug__in=self.within).values_list("pk", flat=True))

    def may_everywhere(self, grant: str) -> bool:
        """Whether a role for all customers allows it."""
        return grant in self._granted[1]

    def may(self, grant: str, customer_ids: Iterable[int]) -> bool:
        """Whether the roles allow it for every one of the customers (and at least one is named)."""
        ids = set(customer_ids)
        return self.may_everywhere(grant) or (bool(ids) and ids <= self._granted[0].get(grant, set()))

    def holds(self, role: str, customer_ids: Iterable[int]) -> bool:
        """Whether the account has this role, or what allows all that it does, for every one of the customers."""
        ids = set(customer_ids)
        return all(self.may(grant, ids) for grant in GRANTS[role])

    def may_somewhere(self, grant: str) -> bool:
        """Whether the roles allow it for any customer at all."""
        return self.may_everywhere(grant) or bool(self._granted[0].get(grant))

    def has_scope(self, scope: str) -> bool:
        """Whether the token was not narrowed away from it."""
        return self.scopes is None or scope in self.scopes

    def customers(self, grant: str = "read") -> QuerySet[Customer]:
        """The customers for which the roles allow it."""
        if self.may_everywhere(grant):
            return Customer.objects.all()
        return Customer.objects.filter(pk__in=self._granted[0].get(grant, set()))
