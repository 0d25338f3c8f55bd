from django.db import migrations, models

from policystore import schema_operations


class Migration(migrations.Migration):
    # Built beside the writers.
    atomic = False

    dependencies = [("policies", "0017_fast_list")]

    operations = [
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(fields=["organization", "egress_policy", "name_key", "id"], name="policy_mode_name"),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(
                fields=["organization", "egress_policy", "endpoint_count", "id"], name="policy_mode_endpoints"
            ),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(
                fields=["organization", "egress_policy", "attachment_count", "id"], name="policy_mode_attachments"
            ),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(
                fields=["organization", "changed_at", "id"],
                condition=models.Q(("attachment_count", 0)),
                name="policy_unattached_change",
            ),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(
                fields=["organization", "name_key", "id"],
                condition=models.Q(("attachment_count", 0)),
                name="policy_unattached_name",
            ),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(
                fields=["organization", "endpoint_count", "id"],
                condition=models.Q(("attachment_count", 0)),
                name="policy_unattached_endpoints",
            ),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(
                fields=["organization", "name_key", "id"],
                condition=models.Q(("risk_count__gt", 0)),
                name="policy_risky_name",
            ),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(
                fields=["organization", "endpoint_count", "id"],
                condition=models.Q(("risk_count__gt", 0)),
                name="policy_risky_endpoints",
            ),
        ),
        schema_operations.AddIndex(
            model_name="policy",
            index=models.Index(
                fields=["organization", "attachment_count", "id"],
                condition=models.Q(("risk_count__gt", 0)),
                name="policy_risky_attachments",
            ),
        ),
        # SQLite would take it for what is risky, and sort all of that for each page.
        schema_operations.RemoveIndex(model_name="policy", name="policy_by_risks"),
    ]
