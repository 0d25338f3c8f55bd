from django.db import migrations

from policystore.policies.derived import install


def derive(apps, schema_editor):
    """Make the index of searched text and the counters, which triggers keep from then on."""
    install.install(schema_editor.connection)


class Migration(migrations.Migration):
    # PostgreSQL builds the index beside writers only outside a transaction.
    atomic = False
    dependencies = [("policies", "0001_initial")]
    operations = [migrations.RunPython(derive)]
