"""Plans are confirmed, put off, grouped and compared; what a digest hashes is stored. Older digests stay as they are."""

import django.db.models.deletion
from django.db import migrations, models

from jobs.triggers import create_sql, drop_sql


def create(apps, schema_editor):
    for statement in create_sql(schema_editor.connection.vendor):
        schema_editor.execute(statement, params=None)


def drop(apps, schema_editor):
    """On SQLite a table is altered by making it anew, which its triggers would not survive."""
    for statement in drop_sql(schema_editor.connection.vendor):
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):

    dependencies = [
        ('fleet', '0004_instance_names'),
        ('jobs', '0011_look_at_blocks_again'),
    ]

    operations = [
        migrations.RunPython(drop, create),
        migrations.CreateModel(
            name='FrozenPlan',
            fields=[
                ('job', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='frozen_plan', serialize=False, to='jobs.job')),
                ('document', models.TextField()),
            ],
        ),
        migrations.AddField(
            model_name='job',
            name='confirm',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='job',
            name='confirmed_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='job',
            name='drift_of',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='drifts', to='jobs.job'),
        ),
        migrations.AddField(
            model_name='job',
            name='group',
            field=models.CharField(blank=True, default='', max_length=100),
        ),
        migrations.AddField(
            model_name='job',
            name='start_after',
            field=models.DateTimeField(blank=True, help_text='nothing of it begins before', null=True),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['group', '-id'], name='job_by_group'),
        ),
        migrations.AddConstraint(
            model_name='job',
            constraint=models.CheckConstraint(condition=models.Q(('confirm', True), ('confirmed_at__isnull', True), ('state__in', ['queued', 'running']), _negated=True), name='job_begins_confirmed'),
        ),
        migrations.RunPython(create, drop),
    ]
