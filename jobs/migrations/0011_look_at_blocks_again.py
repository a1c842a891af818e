"""Where an administrator's line refused a sender before the upgrade, no row says so: such blocks are looked at once more.

An instance that was unchanged by a block had our line already, or his. What the look finds settles the row: one of his
is looked at each hour from then on.
"""

from django.db import migrations
from django.utils import timezone

from fleet.mta.address import AddressError, parse_block_pattern

BATCH = 500


def look_again(apps, schema_editor):
    """Applied blocks for which nothing had to be written are due now."""
    rows = apps.get_model("jobs", "BlockInstance").objects
    unwritten = unchanged(apps)
    applied = rows.filter(state="applied", next_try_at=None, block__is_wanted=True)
    places = applied.values_list("pk", "instance_id", "block__pattern")
    keys = [pk for pk, instance, pattern in places.iterator() if (instance, pattern) in unwritten]
    for start in range(0, len(keys), BATCH):
        rows.filter(pk__in=keys[start : start + BATCH]).update(next_try_at=timezone.now())


def unchanged(apps):
    """{(instance, pattern)} of the blocks that found nothing to write."""
    jobs = apps.get_model("jobs", "Job").objects.filter(operation__startswith="sender.")
    wishes = {pk: wish for pk, *wish in jobs.values_list("pk", "params__pattern", "undo_of_id").iterator()}
    runs = apps.get_model("jobs", "Run").objects.filter(state="unchanged", job__operation="sender.block")
    places = runs.values_list("instance_id", "job_id").iterator()
    return {(instance, canonical(pattern_of(wishes, job))) for instance, job in places}


def pattern_of(wishes, job):
    """An undo has none of its own: it is in what it undoes."""
    pattern, undone = wishes[job]
    return pattern if undone is None else pattern_of(wishes, undone)


def canonical(text):
    try:
        return parse_block_pattern(text or "").text
    except AddressError:
        return ""


class Migration(migrations.Migration):
    dependencies = [("jobs", "0010_worker_liveness")]

    operations = [migrations.RunPython(look_again, migrations.RunPython.noop)]
