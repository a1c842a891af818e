"""Instances that fleet 0004 named anew: targets name them as they are called now, frozen plans as they were called."""

from django.db import migrations

BATCH = 500


def rename(apps, schema_editor):
    """The old name is what a plan's digest was made of."""
    names = {old: new for old, new, _ in renamed(apps)}
    change_targets(apps, names)
    runs = apps.get_model("jobs", "Run").objects
    for old, _, instance in renamed(apps):
        keep_in_plans(runs, instance, old)


def rename_back(apps, schema_editor):
    """Plans go on naming what they were made for."""
    change_targets(apps, {new: old for old, new, _ in renamed(apps)})


def renamed(apps):
    """(HOST/OLD, HOST/NEW, primary key) of each instance that has another name than before."""
    rows = apps.get_model("fleet", "Instance").objects.exclude(former_name="").select_related("host")
    return [(f"{row.host.name}/{row.former_name}", f"{row.host.name}/{row.name}", row.pk) for row in rows]


def keep_in_plans(runs, instance, name):
    planned = runs.filter(instance=instance, plan__isnull=False)
    for rows in batches(planned, "plan"):
        for row in rows:
            row.plan.setdefault("instance", name)
        runs.bulk_update(rows, ["plan"])


def change_targets(apps, names):
    for model in ("Job", "Block"):
        manager = apps.get_model("jobs", model).objects
        for rows in batches(manager.filter(target__has_key="instances"), "target"):
            changed = [row for row in rows if not names.keys().isdisjoint(row.target["instances"])]
            for row in changed:
                row.target["instances"] = [names.get(name, name) for name in row.target["instances"]]
            manager.bulk_update(changed, ["target"])


def batches(rows, column):
    """The rows with that column only, some at a time: none of them is read while another one is written."""
    keys = list(rows.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(keys), BATCH):
        yield list(rows.model.objects.filter(pk__in=keys[start : start + BATCH]).only("pk", column))


class Migration(migrations.Migration):
    dependencies = [("fleet", "0004_instance_names"), ("jobs", "0007_held_messages_by_run")]

    operations = [migrations.RunPython(rename, rename_back)]
