"""What was called a worker's beat is called its liveness."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("jobs", "0009_wakeups")]

    operations = [migrations.RenameModel("WorkerBeat", "WorkerLiveness")]
