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
from jobs.administration import hosts
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


@pytest.mark.django_db(transaction=True)
def test_of_two_that_lead_hosts_through_each_other_the_second_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = build_world()
    row = {"customer": "acme", "address": "mx2.example.com", "username": "u", "credential": "acme-key"}
    assert world.anna.put("hosts/mx2/", row).status_code == 201
    told: list[int] = []
    fields_of = hosts.fields_of

    def late() -> None:
        told.append(Caller(world.dana.token).patch("hosts/mx2/", {"jump_host": "mx1"}).status_code)
        connection.close()

    other = threading.Thread(target=late)

    def slowly(*arguments: Any) -> Any:
        decided = fields_of(*arguments)
        if other.ident is None:
            other.start()
            other.join(0.5)  # time for who does not wait
        return decided

    monkeypatch.setattr(hosts, "fields_of", slowly)
    changed = world.anna.patch("hosts/mx1/", {"jump_host": "mx2"})
    other.join(20)
    assert (changed.status_code, told) == (200, [422])
