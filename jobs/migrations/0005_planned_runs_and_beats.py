"""Runs of dry runs end `planned`; `hits` of blocks, which nothing counted, goes; a worker's beat names its queue.

A job keeps what its rule saw, and how much of it is gone because it is old.
"""

import django.db.models.deletion
from django.db import migrations, models

from jobs.triggers import create_sql, drop_sql


def create(apps, schema_editor):
    for statement in create_sql(schema_editor.connection.vendor):
        schema_editor.execute(statement, params=None)


def drop(apps, schema_editor):
    """On SQLite a table is altered by making it anew, which its triggers would refuse or not survive."""
    for statement in drop_sql(schema_editor.connection.vendor):
        schema_editor.execute(statement, params=None)


def end_dry_runs(apps, schema_editor):
    """Runs of dry runs that have ended stood on `pending` for ever."""
    jobs, runs = apps.get_model("jobs", "Job"), apps.get_model("jobs", "Run")
    for job, finished_at in jobs.objects.filter(state="planned").values_list("pk", "finished_at").iterator():
        runs.objects.filter(job=job, state="pending").update(state="planned", finished_at=finished_at)


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0004_who_asked'),
    ]

    operations = [
        migrations.RunPython(drop, create),
        migrations.AddField(
            model_name='job',
            name='why',
            field=models.TextField(blank=True, default='', help_text='what the rule saw in the plan'),
        ),
        migrations.AddField(
            model_name='job',
            name='thinned',
            field=models.PositiveSmallIntegerField(choices=[(0, 'Nothing'), (1, 'Events'), (2, 'Details')], default=0),
        ),
        migrations.AddField(
            model_name='job',
            name='totals',
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['thinned', 'finished_at'], name='job_by_age'),
        ),
        migrations.AlterField(
            model_name='approval',
            name='job',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='approvals', to='jobs.job'),
        ),
        migrations.RunPython(create, drop),
        migrations.AddField(
            model_name='workerbeat',
            name='queue',
            field=models.CharField(blank=True, default='', max_length=80),
        ),
        migrations.RemoveField(
            model_name='block',
            name='hits',
        ),
        migrations.RemoveConstraint(
            model_name='run',
            name='run_state_known',
        ),
        migrations.AlterField(
            model_name='run',
            name='state',
            field=models.CharField(choices=[('pending', 'pending'), ('running', 'running'), ('planned', 'planned'), ('succeeded', 'succeeded'), ('unchanged', 'unchanged'), ('failed', 'failed'), ('unreachable', 'unreachable'), ('unsupported', 'unsupported'), ('unknown', 'unknown'), ('cancelled', 'cancelled')], default='pending', max_length=12),
        ),
        migrations.AddConstraint(
            model_name='run',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['pending', 'running', 'planned', 'succeeded', 'unchanged', 'failed', 'unreachable', 'unsupported', 'unknown', 'cancelled'])), name='run_state_known'),
        ),
        migrations.RunPython(end_dry_runs, migrations.RunPython.noop),
    ]
