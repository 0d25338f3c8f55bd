from django.conf import settings
from django.db import migrations

from policystore.traffic import retention


def partition(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        retention.make_partitioned()
        retention.create_partitions(retention_days=settings.EVENT_RETENTION_DAYS)


class Migration(migrations.Migration):
    dependencies = [("traffic", "0001_initial")]

    # The models do not change: only PostgreSQL has partitions, see policystore/traffic/retention.py.
    operations = [migrations.RunPython(partition)]
