"""A backup goes from a store on SQLite to one on PostgreSQL and back, and from an older release to this one."""

import json
import zipfile

import pytest

from tests.operations import production
from tests.operations.production import manage, migrated

pytestmark = pytest.mark.production

SEED = """
from policystore.demo import data
from tests import factories
from policystore.policies.core import actions as policies
from policystore.accounts.models import SYSTEM
organization = data.load()
factories.integration(organization)
policies.DeletePolicy(policy=factories.policy(organization, "gone")).apply(by=SYSTEM)
"""
COUNT = "from policystore.audit_log.models import HistoryEvent; print(HistoryEvent.objects.count())"


def rows_of(path):
    """What the manifest tells of each table."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("manifest.json"))["tables"]


def sqlite(folder):
    return {"POLICYSTORE_MODE": "local", "POLICYSTORE_DATA_DIR": str(folder), "DATABASE_URL": ""}


def test_rows_go_from_one_database_to_the_other_and_back_unchanged(tmp_path):
    first, second, third = (tmp_path / f"{number}.backup" for number in (1, 2, 3))
    migrated(tmp_path / "one")
    manage(sqlite(tmp_path / "one"), "shell", "--no-imports", "-c", SEED)
    manage(sqlite(tmp_path / "one"), "backup", str(first))
    with production.database() as settings:
        # Into a database without any tables.
        assert "history events verified" in manage(settings, "restore", str(first))
        manage(settings, "backup", str(second))
    assert "history events verified" in manage(sqlite(tmp_path / "two"), "restore", str(second))
    manage(sqlite(tmp_path / "two"), "backup", str(third))
    assert rows_of(first) == rows_of(second) == rows_of(third)
    assert sum(table["rows"] for table in rows_of(first)) > 500


def test_a_backup_of_an_older_release_is_migrated_once_its_rows_are_in(tmp_path):
    older = tmp_path / "older.backup"
    with production.database() as settings:
        manage(settings, "migrate", "traffic", "0001")
        manage(settings, "backup", str(older))
    tables = {table["name"] for table in rows_of(older)}
    assert "runners_jobrun" in tables
    assert "detections_detection" not in tables
    with production.database() as settings:
        manage(settings, "restore", str(older))
        manage(settings, "migrate", "--check")
        # What is further on than the backup is not taken back.
        with pytest.raises(AssertionError, match="The database is ahead of the backup"):
            manage(settings, "restore", str(older))
        assert manage(settings, "shell", "--no-imports", "-c", COUNT) == "0\n"
