"""History tells of more than policies. The columns keep their names, so that the previous release goes on writing."""

from django.db import migrations, models
from django.db.models import JSONField, Value


class Migration(migrations.Migration):
    dependencies = [("policies", "0003_policy_by_attachments")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveIndex(model_name="historyevent", name="history_of_policy"),
                migrations.RenameField(model_name="historyevent", old_name="policy_id", new_name="subject_id"),
                migrations.RenameField(model_name="historyevent", old_name="policy_name", new_name="subject_name"),
                migrations.AlterField(
                    model_name="historyevent",
                    name="subject_id",
                    field=models.BigIntegerField(db_column="policy_id"),
                ),
                migrations.AlterField(
                    model_name="historyevent",
                    name="subject_name",
                    field=models.CharField(db_column="policy_name", max_length=100),
                ),
                migrations.AddIndex(
                    model_name="historyevent",
                    index=models.Index(fields=["owner", "subject_id", "-id"], name="history_of_policy"),
                ),
            ],
        ),
        migrations.AlterField(
            model_name="historyevent",
            name="subject_name",
            field=models.CharField(db_column="policy_name", max_length=255),
        ),
        migrations.AlterField(model_name="historyevent", name="kind", field=models.CharField(max_length=40)),
        migrations.AddField(
            model_name="historyevent",
            name="subject_type",
            field=models.CharField(db_default="policy", default="policy", max_length=20),
        ),
        migrations.AddField(
            model_name="historyevent",
            name="reply_after",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.AddField(
            model_name="historyevent",
            name="details",
            field=models.JSONField(blank=True, db_default=Value({}, output_field=JSONField()), default=dict),
        ),
    ]
