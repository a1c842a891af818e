"""Who asks and who decides: people and integrations, and their roles."""

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models

from fleet.models import Customer


class AccountManager(BaseUserManager["Account"]):
    def create_user(self, username: str, **fields: Any) -> "Account":
        """A new account that no password opens: the API knows tokens only."""
        account = self.model(username=username, **fields)
        account.set_unusable_password()
        account.save(using=self._db)
        return account


class AccountKind(models.TextChoices):
    PERSON = "person"
    SERVICE = "service"


class Account(AbstractBaseUser):
    """A person, or an integration (`service`). Only persons decide."""

    username = models.CharField(max_length=63, unique=True)
    name = models.CharField(max_length=200, blank=True, default="")
    email = models.EmailField(blank=True, default="")
    kind = models.CharField(max_length=8, choices=AccountKind.choices, default=AccountKind.PERSON)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[AccountManager] = AccountManager()

    USERNAME_FIELD = "username"

    class Meta:
        ordering = ["username"]

    def __str__(self) -> str:
        return self.username


class RoleName(models.TextChoices):
    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Role(models.Model):
    """A role of an account, for one customer or (customer null) for all of them."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="roles")
    role = models.CharField(max_length=8, choices=RoleName.choices)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, null=True, blank=True, related_name="roles")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "role", "customer"], name="role_once_per_customer"),
            models.UniqueConstraint(
                fields=["account", "role"], condition=models.Q(customer=None), name="role_once_for_all_customers"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} for {self.customer or 'all customers'}"
