from datetime import timedelta

from django.conf import settings
from django.db import migrations
from django.utils import timezone

from policystore.traffic import partitions


def partition(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    partitions.make_partitioned()
    today = timezone.now().date()
    partitions.create_missing(
        start=today,
        end=today + timedelta(days=partitions.DAYS_AHEAD),
        retention_days=settings.EVENT_RETENTION_DAYS,
    )


class Migration(migrations.Migration):
    dependencies = [("traffic", "0001_initial")]

    # The models do not change: only PostgreSQL has partitions, see policystore/traffic/partitions.py.
    operations = [migrations.RunPython(partition)]
