"""`manage.py backup` and `manage.py restore`: every row as it was, on either database, or nothing at all."""

import fcntl
import io
import json
import re
import shutil
import stat
import threading
import time
import zipfile
import zlib
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.db.migrations.recorder import MigrationRecorder

from policystore.accounts.models import SYSTEM, ApiKey
from policystore.audit_log.models import HistoryEvent
from policystore.db import online_migrations
from policystore.demo import data
from policystore.integrations.models import Integration
from policystore.inventory.models import Organization
from policystore.operations.backup import create, tables
from policystore.operations.backup import restore as restoring
from policystore.operations.management.commands import restore
from policystore.operations.models import Heartbeat
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "store.backup"


@pytest.fixture(scope="module")
def backup_of_a_policy(django_db_setup, django_db_blocker, tmp_path_factory):
    """A backup of a store with one policy, made once; the database is empty again."""
    path = tmp_path_factory.mktemp("backups") / "store.backup"
    with django_db_blocker.unblock():
        factories.policy(factories.organization())
        run("backup", str(path))
        empty()
    return path


@pytest.fixture
def backed_up(backup_of_a_policy, file):
    """A copy of such a backup, to be damaged."""
    shutil.copy(backup_of_a_policy, file)
    return file


def run(*arguments):
    """Run a command; what it wrote."""
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def refusal(*arguments):
    """Why the command did nothing."""
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    return str(refused.value)


def empty():
    """Take everything out of the database, and let it be as `manage.py migrate` leaves a new one."""
    call_command("flush", interactive=False, verbosity=0)


def changed(file, member, change):
    """Change one member of the archive; the others stay as they are."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = change(members[member])
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def contents():
    """Every row of every table, as a backup would hold it."""
    return {table.name: sorted(table.lines()) for table in tables.tables_of(online_migrations.applied())}


def test_a_restored_store_has_every_row_as_it_was_and_its_history_verifies(file):
    data.load()
    factories.integration(Organization.objects.get(key="demo-org"), secrets={"signing": "whsec_ä€"})
    before = contents()
    assert sum(len(rows) for rows in before.values()) > 500
    said = run("backup", str(file))
    assert re.search(r"store\.backup: [\d,]+ rows of \d+ tables, [\d,]+ KiB\.\n", said)
    empty()
    assert contents() != before
    said = run("restore", str(file))
    assert "each compared with the backup of" in said
    assert "demo-org: " in said
    assert "history events verified" in said
    assert "differs from the backup's" not in said
    assert contents() == before
    assert Integration.objects.get().secrets == {"signing": "whsec_ä€"}


def test_it_waits_for_a_migrate_that_is_at_work_on_the_database(file, monkeypatch):
    factories.policy(factories.organization())
    run("backup", str(file))
    before = contents()
    empty()
    began, ends = threading.Event(), threading.Event()

    def migrate():
        with online_migrations.migrating(pytest.fail):
            began.set()
            ends.wait(30)
        connection.close()

    other = threading.Thread(target=migrate)
    other.start()
    assert began.wait(30)

    def nap(_):
        assert not Policy.objects.exists()
        ends.set()
        other.join()

    monkeypatch.setattr(online_migrations, "time", SimpleNamespace(sleep=nap, monotonic=time.monotonic))
    try:
        assert "Another migrate is at work on this database" in run("restore", str(file))
    finally:
        ends.set()
        other.join()
    assert contents() == before


def test_what_is_made_afterwards_gets_no_id_that_was_ever_used(file):
    organization = factories.organization()
    kept, newest = (factories.policy(organization, name) for name in ("kept", "newest"))
    deleted = newest.pk
    policies.DeletePolicy(policy=newest).apply(by=SYSTEM)
    run("backup", str(file))
    empty()
    run("restore", str(file))
    assert Policy.objects.get().pk == kept.pk
    after = factories.policy(Organization.objects.get(), "after")
    # Else the history of the deleted policy would be this one's, too.
    assert after.pk > deleted


def test_a_restored_store_works_on(file):
    organization = factories.organization()
    policy = factories.policy(organization)
    key = factories.api_key(organization)
    run("backup", str(file))
    empty()
    run("restore", str(file))
    policy = Policy.objects.get()
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    assert HistoryEvent.objects.count() == 2
    assert ApiKey.objects.get().hint[:6] == key[:6]
    assert "verified" in run("verify_history")


def test_a_backup_is_of_one_moment_and_keeps_nobody_from_writing(file, monkeypatch):
    factories.organization("before")
    write_table = create._write_table
    written = []

    def write_and_add(archive, table):
        if not written:
            written.append(table.name)
            adding = threading.Thread(target=_add_organization)
            adding.start()
            adding.join(timeout=60)
            assert Organization.objects.count() == 1, "the snapshot sees what came after it"
        return write_table(archive, table)

    monkeypatch.setattr(create, "_write_table", write_and_add)
    run("backup", str(file))
    assert Organization.objects.count() == 2
    empty()
    run("restore", str(file))
    assert [one.key for one in Organization.objects.all()] == ["before"]


def _add_organization():
    try:
        factories.organization("during")
    finally:
        connection.close()


def test_signs_of_life_and_sessions_are_left_out(file, client):
    client.force_login(factories.user(), backend="policystore.accounts.access.RoleBackend")
    Heartbeat.beat(Heartbeat.WORKER)
    run("backup", str(file))
    with zipfile.ZipFile(file) as archive:
        assert not {"tables/django_session.jsonl", "tables/operations_heartbeat.jsonl"} & set(archive.namelist())
        assert "tables/accounts_user.jsonl" in archive.namelist()
    empty()
    Heartbeat.beat(Heartbeat.WORKER)
    run("restore", str(file))
    assert not Heartbeat.objects.exists()


def test_the_file_is_for_its_owner_alone_and_has_no_key_or_secret_in_clear(file):
    organization = factories.organization()
    key = factories.api_key(organization)
    factories.integration(organization, secrets={"signing": "whsec_very-secret"})
    run("backup", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with zipfile.ZipFile(file) as archive:
        whole = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert key[8:] not in whole
    assert "very-secret" not in whole
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_that_is_there_is_not_written_over(file):
    file.write_text("the last backup")
    assert "already exists" in refusal("backup", str(file))
    assert file.read_text() == "the last backup"


def test_two_backups_to_one_place_leave_one_that_is_whole(file, monkeypatch):
    factories.policy(factories.organization())
    write_table, others = create._write_table, []

    def write_beside_another(archive, table):
        if not others:
            others.append(threading.Thread(target=_back_up, args=(file,)))
            others[0].start()
            others[0].join(timeout=60)
            others.append(file.read_bytes())
        return write_table(archive, table)

    monkeypatch.setattr(create, "_write_table", write_beside_another)
    assert refusal("backup", str(file)).startswith("No backup was made: ")
    assert file.read_bytes() == others[1]
    assert "is complete: " in run("restore", "--check", str(file))
    assert list(file.parent.iterdir()) == [file]


def _back_up(file):
    try:
        # So that it has other rows than the one that began before it.
        factories.organization("during")
        create.write(file)
    finally:
        connection.close()


def test_a_folder_that_is_missing_is_told(tmp_path):
    assert refusal("backup", str(tmp_path / "nowhere" / "store.backup")).startswith("No backup was made: ")


def test_a_backup_that_fails_leaves_no_file_behind(file, monkeypatch):
    def fail(archive, table):
        raise OSError("No space left on device")

    monkeypatch.setattr(create, "_write_table", fail)
    assert refusal("backup", str(file)) == "No backup was made: No space left on device"
    assert list(file.parent.iterdir()) == []


def test_what_killed_backups_left_is_removed_and_not_what_one_at_work_writes(file, monkeypatch):
    left, at_work, foreign = (
        file.with_name(name)
        for name in ("store.backup.k1ll3d_8.unfinished", "store.backup.at_w0rk8.unfinished", "store.backup.unfinished")
    )
    for path in (left, at_work, foreign):
        path.write_bytes(b"PK")
    write_table = create._write_table

    def write_while_another_begins(archive, table):
        create._remove_left_over(file)
        return write_table(archive, table)

    monkeypatch.setattr(create, "_write_table", write_while_another_begins)
    with at_work.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        run("backup", str(file))
    assert sorted(file.parent.iterdir()) == sorted([file, at_work, foreign])


def test_a_file_that_is_about_to_get_its_name_is_not_left_over(file, monkeypatch):
    link = create.os.link

    def link_while_another_begins(unfinished, path):
        create._remove_left_over(file)
        link(unfinished, path)

    monkeypatch.setattr(create.os, "link", link_while_another_begins)
    run("backup", str(file))
    assert list(file.parent.iterdir()) == [file]


def test_a_place_without_links_gets_a_backup_and_loses_none(file, monkeypatch):
    def refuse(unfinished, path):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(create.os, "link", refuse)
    run("backup", str(file))
    assert "is complete: " in run("restore", "--check", str(file))
    assert list(file.parent.iterdir()) == [file]
    there = file.with_name("there.backup")
    monkeypatch.setattr(create, "_write_all", lambda archive: there.write_text("of another"))
    assert refusal("backup", str(there)).startswith("No backup was made: ")
    assert there.read_text() == "of another"


def test_a_file_that_was_taken_for_left_over_before_it_was_locked_is_begun_anew(file, monkeypatch):
    make, made = create.tempfile.mkstemp, []

    def mkstemp(**where):
        made.append(make(**where))
        if len(made) == 1:
            create._remove_left_over(file)
        return made[-1]

    monkeypatch.setattr(create.tempfile, "mkstemp", mkstemp)
    run("backup", str(file))
    assert len(made) == 2
    assert list(file.parent.iterdir()) == [file]


def test_a_database_of_a_newer_release_is_not_backed_up_in_part(file):
    recorder = MigrationRecorder(connection)
    recorder.record_applied("policies", "9999_later")
    try:
        assert "A newer release has changed this database (policies.9999_later)" in refusal("backup", str(file))
    finally:
        recorder.record_unapplied("policies", "9999_later")


def test_a_database_with_rows_is_left_alone(file):
    factories.organization("backed-up")
    run("backup", str(file))
    empty()
    factories.organization("there-already")
    before = contents()
    assert "The database is not empty (inventory_organization has rows)" in refusal("restore", str(file))
    assert contents() == before


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("tables/inventory_organization.jsonl", lambda content: content.replace(b"octo", b"evil")),
        ("tables/inventory_organization.jsonl", lambda content: b""),
        ("tables/inventory_organization.jsonl", lambda content: content * 2),
        ("tables/audit_log_historyevent.jsonl", lambda content: content[: len(content) // 2]),
        ("manifest.json", lambda content: content[:-20]),
        ("manifest.json", lambda content: b"[]"),
        ("manifest.json", lambda content: content.replace(b'"format": 1', b'"format": 99')),
        ("manifest.json", lambda content: content.replace(b"inventory_organization", b"inventory_nowhere")),
        ("manifest.json", lambda content: content.replace(b"0001_initial", b"0001_from_the_future")),
    ],
    ids=["changed", "empty", "twice", "cut", "broken", "another", "format", "table", "newer"],
)
def test_a_backup_that_is_not_whole_is_refused_and_changes_nothing(backed_up, member, change):
    changed(backed_up, member, change)
    before = contents()
    assert refusal("restore", str(backed_up)).startswith("Nothing was restored: ")
    assert contents() == before


def retold(file, content):
    """Give the organizations' member this content, and the manifest what it has to tell of it."""
    digest = tables.Digest()
    for line in content.splitlines(keepends=True):
        digest.add(line)
    changed(file, "tables/inventory_organization.jsonl", lambda _: content)

    def tell(text):
        told = json.loads(text)
        (table,) = [table for table in told["tables"] if table["name"] == "inventory_organization"]
        table.update(rows=digest.rows, digest=str(digest))
        return json.dumps(told).encode()

    changed(file, "manifest.json", tell)


@pytest.mark.parametrize(
    "content",
    [b"no JSON\n", b"[1]\n", b"{}\n", b"7\n", b"null\n", b"[" * 100_000 + b"\n", b"\xff\n", b"[[],[],[],[],[],[]]\n"],
    ids=["text", "short", "object", "number", "null", "deep", "bytes", "lists"],
)
def test_rows_that_are_none_are_refused_in_one_line_and_undo_all(backed_up, content):
    retold(backed_up, content)
    before = contents()
    said = refusal("restore", str(backed_up))
    assert said.startswith("Nothing was restored: ")
    assert "\n" not in said
    assert contents() == before


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        lambda told: b"[" * 100_000,
        lambda told: json.dumps({**told, "migrations": [["policies", []]]}).encode(),
        lambda told: json.dumps({**told, "fingerprints": ["API_KEY_SECRET"]}).encode(),
        lambda told: json.dumps({**told, "tables": [{**table, "last_key": "x"} for table in told["tables"]]}).encode(),
    ],
    ids=["deep", "migrations", "fingerprints", "keys"],
)
def test_a_manifest_that_is_none_is_refused_in_one_line(backed_up, change):
    changed(backed_up, "manifest.json", lambda text: change(json.loads(text)))
    before = contents()
    assert refusal("restore", str(backed_up)).startswith("Nothing was restored: ")
    assert contents() == before


def test_secrets_that_this_release_does_not_know_are_no_matter(file):
    run("backup", str(file))
    changed(file, "manifest.json", lambda text: text.replace(b'"API_KEY_SECRET"', b'"OTHER_SECRET"'))
    empty()
    assert "API_KEY_SECRET (or SECRET_KEY, if it is not set) differs from the backup's" in run("restore", str(file))


# Where a member's head in the list at the end of the archive tells its flags, and how it is packed.
FLAGS, METHOD = 8, 10


@pytest.mark.django_db
@pytest.mark.parametrize(("place", "value"), [(FLAGS, 1), (FLAGS, 32), (METHOD, 1), (METHOD, 14), (METHOD, 99)])
def test_a_member_that_cannot_be_unpacked_is_refused_in_one_line(backed_up, place, value):
    whole = bytearray(backed_up.read_bytes())
    whole[whole.rindex(b"PK\1\2") + place] = value
    backed_up.write_bytes(whole)
    for options in ([], ["--check"]):
        assert refusal("restore", *options, str(backed_up)).startswith("Nothing was restored: ")


def test_a_line_or_a_manifest_that_would_fill_the_memory_is_refused(file, monkeypatch):
    factories.organization()
    run("backup", str(file))
    monkeypatch.setattr(restoring, "MAX_LINE_BYTES", 10)
    assert "it has a line that is longer than any row" in refusal("restore", "--check", str(file))
    monkeypatch.setattr(restoring, "MAX_MANIFEST_BYTES", 10)
    assert "Its manifest cannot be read" in refusal("restore", "--check", str(file))


def test_a_migration_that_fails_once_the_rows_are_in_is_told_as_that(file, monkeypatch):
    factories.organization("kept")
    run("backup", str(file))
    empty()

    def fail(command, **options):
        raise DatabaseError("no room\nDETAIL: none at all")

    monkeypatch.setattr(restore, "call_command", fail)
    said = refusal("restore", str(file))
    assert said.startswith("All rows are restored, but the database is not migrated to this release: no room ")
    assert "Run `manage.py migrate`" in said
    assert Organization.objects.get().key == "kept"


@pytest.mark.django_db
@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"PK\3\4 and no more"])
def test_another_kind_of_file_is_refused(file, content):
    file.write_bytes(content)
    assert "This is not a backup of a store" in refusal("restore", str(file))
    assert "Nothing was restored" in refusal("restore", str(file.parent / "nowhere"))


@pytest.mark.django_db
def test_a_backup_that_was_cut_short_is_refused(backed_up):
    backed_up.write_bytes(backed_up.read_bytes()[:-100])
    assert "This is not a backup of a store, or it is incomplete" in refusal("restore", str(backed_up))


def unpacked(file):
    """What is in each member; None where one cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return None


@pytest.mark.django_db
def test_a_backup_with_a_broken_bit_is_refused_wherever_it_is(backed_up):
    file = backed_up
    whole, told = file.read_bytes(), unpacked(file)
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda member: member.compress_size)
    refused = 0
    for place in range(largest.header_offset + 60, largest.header_offset + largest.compress_size, 40):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        # Of what stands in a text twice, a packed one may name either place.
        if unpacked(file) != told:
            assert refusal("restore", "--check", str(file)).startswith("Nothing was restored: ")
            refused += 1
    assert refused > 10


def test_rows_that_the_database_does_not_keep_as_they_are_undo_all(file, monkeypatch):
    factories.organization()
    run("backup", str(file))
    empty()
    insert = tables.Table.insert

    def other(self, rows):
        insert(self, [[f"{value}x" if value == "octo-org" else value for value in row] for row in rows])

    monkeypatch.setattr(tables.Table, "insert", other)
    assert "The database did not store the backup unchanged: inventory_organization" in refusal("restore", str(file))
    assert not Organization.objects.exists()


def test_a_backup_can_be_checked_without_a_database_to_put_it_into(file):
    factories.organization("there")
    run("backup", str(file))
    assert "is complete: " in run("restore", "--check", str(file))
    assert Organization.objects.get().key == "there"
    changed(file, "tables/inventory_organization.jsonl", lambda content: content.replace(b"there", b"where"))
    assert "The backup is damaged: inventory_organization" in refusal("restore", "--check", str(file))


def test_other_secrets_than_the_backup_had_are_told(file, settings):
    factories.organization()
    run("backup", str(file))
    empty()
    settings.API_KEY_SECRET, settings.ENCRYPTION_KEYS = "another", ["another"]
    said = run("restore", str(file))
    assert "API_KEY_SECRET (or SECRET_KEY, if it is not set) differs from the backup's: no API key works" in said
    assert "ENCRYPTION_KEYS (or SECRET_KEY, if it is not set) differs from the backup's" in said


@pytest.mark.django_db
def test_the_manifest_tells_what_is_in_it(backup_of_a_policy):
    with zipfile.ZipFile(backup_of_a_policy) as archive:
        told = json.loads(archive.read("manifest.json"))
        assert archive.namelist()[-1] == "manifest.json"
    assert (told["format"], told["database"]) == (tables.FORMAT, connection.vendor)
    assert told["version"]
    assert ["policies", "0001_initial"] in told["migrations"]
    (table,) = [table for table in told["tables"] if table["name"] == "policies_policy"]
    assert (table["rows"], table["last_key"] >= 1, len(table["digest"])) == (1, True, 64)
    assert "name_key" in table["columns"]


def test_every_table_of_the_store_is_in_a_backup_or_left_out_on_purpose(file):
    run("backup", str(file))
    with zipfile.ZipFile(file) as archive:
        kept = {name.removeprefix("tables/").removesuffix(".jsonl") for name in archive.namelist()} - {"manifest.json"}
    there = set(connection.introspection.table_names())
    assert there - kept == {*tables.LEFT_OUT, "django_migrations"}
