from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("fleet", "0004_instance_names")]

    operations = [
        migrations.AddField("customer", "defaults", models.JSONField(blank=True, default=dict)),
    ]
