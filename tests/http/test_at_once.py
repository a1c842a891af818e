"""Two who change the same thing at the same moment."""

import threading
from typing import Any

import pytest
from django.db import connection
from django.db.models import Q
from django.utils.module_loading import import_string

from api.viewsets import ApiViewSet
from fleet.models import Credential, Host
from fleet.secrets import seal_credential
from tests.http.cast import Caller, build_world
from tests.http.test_errors import refused

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


REFERRING = {
    "credentials/acme-key/replace/": ("application/json", b'{"by": "new-key"}', "jobs.lifecycle.replacing._change"),
    "hosts/import/": (
        "text/csv",
        b"name,customer,address,username,credential\nn1,acme,n1.example.com,u,new-key\n",
        "jobs.administration.many_hosts.store",
    ),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", REFERRING)
def test_who_refers_to_what_is_deleted_at_that_moment_is_told_so(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    world = build_world()
    new = Credential(customer=world.acme, name="new-key", public_key="ssh-ed25519 BBBB")
    seal_credential(new, b"not a real key")
    new.save()
    kind, body, writer = REFERRING[path]
    write = import_string(writer)

    def late(*arguments: Any) -> None:
        rows = Credential.objects.filter(pk=new.pk)
        rows._raw_delete(rows.db)  # type: ignore[attr-defined]  # as another process does, whose look came before
        write(*arguments)

    monkeypatch.setattr(writer, late)
    refused(world.anna.post(path, body, **{"Content-Type": kind}), 409, "conflict")
    assert not Host.objects.filter(Q(name="n1") | Q(next_credential__isnull=False)).exists()
