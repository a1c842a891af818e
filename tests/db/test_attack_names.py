"""Names that must stay what they mean."""

import pytest

from fleet.models import Instance
from jobs.administration.accounts import create_account
from jobs.errors import Invalid
from jobs.models import AccountKind
from tests.db.fleet import Cast, ask


@pytest.mark.parametrize("pattern", ["mail.acme.example", ".mail.acme.example", ".acme.example", "acme.example"])
def test_a_domain_of_our_own_is_not_blocked_by_its_parent_either(people: Cast, pattern: str) -> None:
    Instance.objects.update(options={"own_domains": ["mail.acme.example"]})
    with pytest.raises(Invalid) as caught:
        ask(people.alice, "sender.block", params={"pattern": pattern})
    assert caught.value.code == "protected"


@pytest.mark.parametrize("pattern", ["me.example", ".other.acme.example", "x@mail.acme.example"])
def test_what_only_looks_like_it_may_be_blocked(people: Cast, pattern: str) -> None:
    Instance.objects.update(options={"own_domains": ["mail.acme.example"]})
    assert ask(people.alice, "sender.block", params={"pattern": pattern}).state == "planning"


@pytest.mark.parametrize("name", ["mxfleet", "MXfleet"])
def test_nobody_can_be_called_as_the_schedule_is(people: Cast, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        create_account(people.dana, AccountKind.SERVICE, {"username": name})
    assert caught.value.code == "name_taken"
