from django.db import migrations, models

from policystore import schema_operations
from policystore.policies.derived import install


def derive(apps, schema_editor):
    """Make the index of searched text and the counters, which triggers keep from then on."""
    install.install(schema_editor.connection)


class Migration(migrations.Migration):
    # Nobody has to wait for the index: it is filled in steps and built beside the writers.
    atomic = False

    dependencies = [
        ("inventory", "0001_initial"),
        ("policies", "0016_four_eyes_for_keys"),
    ]

    operations = [
        migrations.CreateModel(
            name="PolicyCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("total", models.BigIntegerField()),
                ("block", models.BigIntegerField()),
                ("audit", models.BigIntegerField()),
                ("unattached", models.BigIntegerField()),
                ("risky", models.BigIntegerField()),
            ],
            options={"db_table": "policies_policy_counts", "managed": False},
        ),
        migrations.RunPython(derive, migrations.RunPython.noop),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(fields=["organization", "egress_policy", "-changed_at", "-id"], name="policy_by_mode"),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(fields=["organization", "-risk_count", "-id"], name="policy_by_risks"),
        ),
    ]
