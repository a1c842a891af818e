"""Instances of Exim and OpenSMTPD were called as their program is (`exim4`, `smtpd`); now as their MTA, as all others."""

from django.db import migrations, models

NAMED_BY_PROGRAM = ("exim", "opensmtpd")


def name_by_mta(apps, schema_editor):
    """One on each host; of several, which stand for one that was found anew, the one that is in use."""
    instances = apps.get_model("fleet", "Instance").objects
    rows = instances.filter(mta__in=NAMED_BY_PROGRAM, former_name="").order_by("-enabled", "pk")
    for row in rows:
        if row.name != row.mta and not instances.filter(host=row.host_id, name=row.mta).exists():
            row.former_name, row.name = row.name, row.mta
            row.save(update_fields=["name", "former_name"])


def name_by_program(apps, schema_editor):
    """As it was."""
    for row in apps.get_model("fleet", "Instance").objects.exclude(former_name=""):
        row.former_name, row.name = "", row.former_name
        row.save(update_fields=["name", "former_name"])


class Migration(migrations.Migration):
    dependencies = [("fleet", "0003_customers_without_settings")]

    operations = [
        migrations.AddField("instance", "former_name", models.CharField(blank=True, default="", max_length=63)),
        migrations.RunPython(name_by_mta, name_by_program),
    ]
