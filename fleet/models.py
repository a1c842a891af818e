"""What exists: customers, credentials, hosts, MTA instances. Rows and constraints, no workflow."""

from django.db import models


class Customer(models.Model):
    """An MSP's customer, named by its slug. `defaults`: what its new hosts get where nobody says otherwise, as in the
    API; credential and jump host by their names."""

    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    contact = models.CharField(max_length=200, blank=True, default="")
    enabled = models.BooleanField(default=True)
    defaults = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Credential(models.Model):
    """An SSH key of a customer. `private_key` is sealed (fleet.secrets); nothing else here is secret."""

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="credentials")
    name = models.CharField(max_length=63)
    private_key = models.TextField(help_text="sealed PEM, without passphrase")
    certificate = models.TextField(blank=True, default="")
    public_key = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["customer", "name"], name="credential_name_per_customer")]

    def __str__(self) -> str:
        return self.name


class HostStatus(models.TextChoices):
    NEW = "new"
    OK = "ok"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class Become(models.TextChoices):
    NONE = "none"
    SUDO = "sudo"


class Host(models.Model):
    """An MX host that we reach by SSH. `facts` is what discovery learnt of it (fleet.mta.types.HostFacts as JSON).

    `next_credential` takes the place of `credential` once a login with it has worked; it is tried when that is due.
    """

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="hosts")
    name = models.CharField(max_length=63, unique=True)
    address = models.CharField(max_length=255)
    port = models.PositiveIntegerField(default=22)
    username = models.CharField(max_length=64)
    credential = models.ForeignKey(Credential, on_delete=models.PROTECT, related_name="hosts")
    host_key = models.TextField(blank=True, default="")
    host_ca = models.TextField(blank=True, default="")
    become = models.CharField(max_length=8, choices=Become.choices, default=Become.NONE)
    jump_host = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="reached_hosts")
    labels = models.JSONField(default=dict, blank=True)
    site = models.CharField(max_length=63, blank=True, default="")
    enabled = models.BooleanField(default=True)
    status = models.CharField(max_length=16, choices=HostStatus.choices, default=HostStatus.NEW)
    status_reason = models.CharField(max_length=500, blank=True, default="")
    last_seen_at = models.DateTimeField(null=True, blank=True)
    next_credential = models.ForeignKey(
        Credential, on_delete=models.PROTECT, null=True, blank=True, related_name="next_hosts"
    )
    next_credential_due = models.DateTimeField(null=True, blank=True, db_index=True)
    next_credential_tries = models.PositiveIntegerField(default=0)
    next_credential_error = models.CharField(max_length=500, blank=True, default="")
    facts = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=models.Q(port__gte=1, port__lte=65535), name="host_port_range"),
        ]

    def __str__(self) -> str:
        return self.name


class Instance(models.Model):
    """An MTA instance on a host: `mx1/postfixEXT`. Made and updated by discovery only.

    `name` is given once and kept (fleet.mta.host.names). `former_name`: what it was called before the upgrade that
    named it anew, and by which it is still found; else empty.
    """

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="instances")
    name = models.CharField(max_length=63)
    former_name = models.CharField(max_length=63, blank=True, default="")
    mta = models.CharField(max_length=32)
    version = models.CharField(max_length=64)
    config_dir = models.CharField(max_length=255)
    queue_dirs = models.JSONField(default=list)
    front_ends = models.JSONField(default=list)
    options = models.JSONField(default=dict)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["host__name", "name"]
        constraints = [models.UniqueConstraint(fields=["host", "name"], name="instance_name_per_host")]

    def __str__(self) -> str:
        return f"{self.host.name}/{self.name}"


class QuarantineLook(models.Model):
    """What the last look into an instance's quarantine showed that no row tells of; the next one is at `due_at`.

    `orphans`: messages, `sample` names some. `more`: messages beyond what one look tells of. `odd`: files that no job
    of ours can have put there so. `reported`: digest of the last report. `error`: why the last look failed, or empty.
    """

    instance = models.OneToOneField(
        Instance, on_delete=models.CASCADE, primary_key=True, related_name="quarantine_look"
    )
    due_at = models.DateTimeField(db_index=True)
    looked_at = models.DateTimeField(null=True, blank=True)
    orphans = models.PositiveIntegerField(default=0)
    more = models.PositiveIntegerField(default=0)
    odd = models.PositiveIntegerField(default=0)
    sample = models.JSONField(default=list)
    reported = models.CharField(max_length=64, blank=True, default="")
    error = models.CharField(max_length=500, blank=True, default="")

    def __str__(self) -> str:
        return f"quarantine of {self.instance}"
