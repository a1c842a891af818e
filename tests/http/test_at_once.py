"""Two who change the same thing at the same moment."""

import threading
from typing import Any

import pytest
from django.db import connection

from api.viewsets import ApiViewSet
from tests.http.cast import Caller, build_world

CHANGES = {
    "hosts/mx1/": {"site": "fra"},
    "credentials/acme-key/": {"certificate": "another"},
    "customers/acme/": {"name": "Acme Ltd."},
    "users/erin/": {"name": "Erin"},
    "service-accounts/robot/": {"roles": []},
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", CHANGES)
def test_of_two_that_change_what_both_have_read_the_second_is_told_so(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    world = build_world()
    tag = {"If_Match": world.dana.get(path).headers["ETag"]}
    told: list[int] = []
    check = ApiViewSet.check_match

    def late() -> None:
        told.append(Caller(world.dana.token).delete(path, **tag).status_code)
        connection.close()

    other = threading.Thread(target=late)

    def checked(view: ApiViewSet, content: Any) -> None:
        check(view, content)
        if other.ident is None:
            other.start()
            other.join(0.3)  # time for who does not wait

    monkeypatch.setattr(ApiViewSet, "check_match", checked)
    changed = world.dana.patch(path, CHANGES[path], **tag)
    other.join(20)
    assert (changed.status_code, told) == (200, [412])
