from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inventory", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="github_id",
            field=models.BigIntegerField(blank=True, editable=False, null=True, unique=True),
        ),
    ]
