import django.db.models.deletion
from django.db import migrations, models

FROM_JOB_RUNS = """
INSERT INTO runners_lastfetch
    (workflow_id, at, run_id, correlation_id, cluster, policy_id, policy_version, egress_policy)
SELECT workflow_id, fetched_at, run_id, correlation_id, cluster, policy_id, policy_version, egress_policy
FROM (
    SELECT w.id AS workflow_id, j.fetched_at, j.run_id, j.correlation_id, j.cluster, j.policy_id, j.policy_version,
        j.egress_policy, ROW_NUMBER() OVER (PARTITION BY w.id ORDER BY j.fetched_at DESC, j.id DESC) AS place
    FROM runners_jobrun j
    JOIN inventory_repository r ON r.organization_id = j.organization_id AND r.key = LOWER(j.repository)
    JOIN inventory_workflow w ON w.repository_id = r.id AND w.file_name = j.workflow
    WHERE j.fetched_at IS NOT NULL
) fetched WHERE place = 1
"""


class Migration(migrations.Migration):
    dependencies = [
        ("inventory", "0001_initial"),
        ("runners", "0003_job_run_counts"),
    ]

    operations = [
        migrations.CreateModel(
            name="LastFetch",
            fields=[
                (
                    "workflow",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="last_fetch",
                        serialize=False,
                        to="inventory.workflow",
                    ),
                ),
                ("at", models.DateTimeField()),
                ("run_id", models.CharField(blank=True, max_length=64)),
                ("correlation_id", models.CharField(max_length=255)),
                ("cluster", models.CharField(blank=True, max_length=255)),
                ("policy_id", models.BigIntegerField(blank=True, null=True)),
                ("policy_version", models.PositiveIntegerField(blank=True, null=True)),
                ("egress_policy", models.CharField(blank=True, max_length=5)),
            ],
        ),
        migrations.RunSQL(FROM_JOB_RUNS, migrations.RunSQL.noop),
    ]
