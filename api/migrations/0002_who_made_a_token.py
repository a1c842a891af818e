"""Who had a hand in a token. For those that are there already the audit trail tells it, in doubt against them."""

from django.db import migrations, models

UNKNOWN = "?"
"""The maker of a token of which the trail tells nothing: no username can be that."""


def tell_makers(apps, schema_editor):
    """A token that its person made decides only if that person never had one from somebody else before.

    Which token it was made with was not recorded.
    """
    made = {}
    hands = {}
    events = apps.get_model("jobs", "AuditEvent").objects.filter(action="token.created").order_by("id")
    for actor, owner, channel, data in events.values_list("actor", "object", "channel", "data"):
        if data.get("token") in made:  # one entry in each chain that the owner's roles touch
            continue
        hand = set() if channel == "cli" else {actor, *hands.get(actor, ())} - {owner}
        made[data.get("token")] = sorted(hand)
        hands.setdefault(owner, set()).update(hand)
    for token in apps.get_model("api", "Token").objects.select_related("account"):
        token.minted_by = made.get(str(token.pk), [UNKNOWN])
        token.customers = reach(apps, token)
        token.save(update_fields=["minted_by", "customers"])


def reach(apps, token):
    """What an administrator of some customers gave to somebody else stays at the customers where that one is now."""
    roles = apps.get_model("jobs", "Role").objects
    if token.minted_by in ([], [UNKNOWN]):
        return None
    if roles.filter(account__username__in=token.minted_by, role="admin", customer=None).exists():
        return None
    named = roles.filter(account=token.account).exclude(customer=None)
    return sorted(named.values_list("customer__slug", flat=True).distinct()) or None


class Migration(migrations.Migration):
    dependencies = [("api", "0001_initial"), ("jobs", "0003_leases_and_order")]

    operations = [
        migrations.AddField("token", "customers", models.JSONField(blank=True, null=True)),
        migrations.AddField("token", "minted_by", models.JSONField(blank=True, default=list)),
        migrations.RunPython(tell_makers, migrations.RunPython.noop),
    ]
