"""Which token a token was made with. Of those that are there already nothing tells it."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("api", "0002_who_made_a_token")]

    operations = [
        migrations.AddField(
            "token",
            "made_with",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="makes",
                to="api.token",
            ),
        ),
    ]
