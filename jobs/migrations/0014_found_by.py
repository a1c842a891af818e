"""What is looked for by filters of the API is found without reading all."""

from django.db import migrations, models

from jobs.models.quarantine import IndexedSender


class Migration(migrations.Migration):
    dependencies = [("jobs", "0013_tally")]

    operations = [
        migrations.AddIndex("job", models.Index(fields=["created_at"], name="job_by_creation")),
        migrations.AddIndex("job", models.Index(fields=["ticket"], name="job_by_ticket")),
        migrations.AddIndex("auditevent", models.Index(fields=["on_behalf_of"], name="audit_by_principal")),
        migrations.AddIndex("auditevent", models.Index(fields=["at"], name="audit_by_time")),
        migrations.AddIndex("quarantineitem", models.Index(IndexedSender("sender"), name="quarantine_by_sender")),
    ]
