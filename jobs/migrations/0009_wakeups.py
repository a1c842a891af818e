"""What was called a ring is called a wakeup."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0008_instance_names")]

    operations = [
        migrations.RenameField("job", "ring_at", "wake_at"),
        migrations.RenameField("job", "rings", "wakeups"),
        migrations.AlterField(
            "job",
            "wake_at",
            models.DateTimeField(blank=True, help_text="when the sweep wakes a worker for it again", null=True),
        ),
    ]
