"""Alters the table that each fetch reads, for which PostgreSQL wants it alone."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("policies", "0001_initial")]
    operations = [
        migrations.RunSQL("ALTER TABLE policies_policy ADD COLUMN of_next_release boolean NOT NULL DEFAULT false")
    ]
