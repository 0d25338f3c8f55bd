import django.db.models.functions.text
from django.db import migrations, models

from policystore import schema_operations


class Migration(migrations.Migration):
    # Indexes are built while others write; see schema_operations.
    atomic = False

    dependencies = [
        ("inventory", "0001_initial"),
        ("runners", "0007_lighter_writes"),
    ]

    operations = [
        schema_operations.AddIndex(
            model_name="jobrun",
            index=models.Index(
                models.F("organization"),
                django.db.models.functions.text.Lower("repository"),
                models.F("job"),
                models.OrderBy(models.F("id"), descending=True),
                condition=models.Q(("job", ""), _negated=True),
                name="job_run_of_named_job",
            ),
        ),
        schema_operations.RemoveIndex(
            model_name="jobrun",
            name="job_run_of_job",
        ),
    ]
