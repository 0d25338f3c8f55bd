"""Goes on once there is a file of the name that the environment says."""

import os
import time
from pathlib import Path

from django.db import migrations


def wait(apps, schema_editor):
    while not Path(os.environ["SLOW_RELEASE_GOES_ON"]).exists():
        time.sleep(0.05)


class Migration(migrations.Migration):
    # On SQLite an open transaction would keep the other process from as much as looking what there is to do.
    atomic = False
    operations = [
        migrations.RunPython(wait),
        migrations.RunSQL("CREATE TABLE slow_release (id integer)"),
    ]
