import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("fleet", "0005_customer_defaults")]

    operations = [
        migrations.AddField(
            "host",
            "next_credential",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="next_hosts",
                to="fleet.credential",
            ),
        ),
        migrations.AddField("host", "next_credential_due", models.DateTimeField(blank=True, db_index=True, null=True)),
        migrations.AddField("host", "next_credential_tries", models.PositiveIntegerField(default=0)),
        migrations.AddField("host", "next_credential_error", models.CharField(blank=True, default="", max_length=500)),
    ]
