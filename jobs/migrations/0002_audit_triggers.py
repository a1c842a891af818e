"""The database refuses to change what is recorded, and to move a job where it may not go."""

from django.db import migrations

from jobs.triggers import create_sql, drop_sql


def create(apps, schema_editor):
    vendor = schema_editor.connection.vendor
    for statement in drop_sql(vendor) + create_sql(vendor):
        schema_editor.execute(statement, params=None)


def drop(apps, schema_editor):
    for statement in drop_sql(schema_editor.connection.vendor):
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial")]

    operations = [migrations.RunPython(create, drop)]
