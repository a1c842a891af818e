"""Tokens, and the answers kept for repeated requests."""

from django.db import models

from fleet.ids import uuid7
from jobs.models import Account


class Token(models.Model):
    """A bearer token of an account. Only the SHA-256 of it is stored.

    `customers`: slugs of those it is good for, null: all that the account's roles name. `minted_by`: usernames of all
    who had a hand in it besides its account, through any number of tokens; empty: the account's person made it.
    `made_with`: the token that it was made with, and ends with; null: made on the server, or before that was recorded.
    `secret`: the token itself, in the row of one that was made a moment ago.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list)
    networks = models.JSONField(default=list)
    customers = models.JSONField(null=True, blank=True)
    minted_by = models.JSONField(default=list, blank=True)
    made_with = models.ForeignKey("self", on_delete=models.RESTRICT, null=True, blank=True, related_name="makes")
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    secret: str

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class StoredAnswer(models.Model):
    """The answer to a request with an Idempotency-Key; `status` is null while the first one is in flight."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    body = models.TextField(blank=True, default="")
    headers = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "key"], name="idempotency_key_per_caller")]
        indexes = [models.Index(fields=["created_at"])]

    def __str__(self) -> str:
        return self.key
