"""What keeps a command from its work is told in one line and by its exit code, whichever command it is."""

import getpass
import os
import shlex
import signal
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from tests import factories
from tests.both_databases import clean_environment
from tests.operations.production import migrated
from tests.operations.running import ROOT

# Whole processes, on databases of their own: once is enough.
pytestmark = pytest.mark.browser

AWAY = "postgresql://store:pa55word@127.0.0.1:1/store"
SEED = """
from policystore.audit_log import hash_chain
from tests import factories
organization = factories.organization()
factories.management_key(organization, "caf\\u00e9")
hash_chain.seal_waiting()
"""
# What a shell takes for one byte that is not UTF-8.
BYTES = "$'\\xff'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store on SQLite with one organization."""
    made = tmp_path_factory.mktemp("stores") / "store"
    migrated(made)
    assert store(made, f"manage shell --no-imports -c {shlex.quote(SEED)}", PYTHONPATH=str(ROOT)).returncode == 0
    return made


def store(folder, line, **more):
    """Run a line of shell in which `manage` is the command line of the store in this folder."""
    environment = {**clean_environment(), "POLICYSTORE_DATA_DIR": str(folder), "LC_ALL": "C.UTF-8"}
    environment |= {"OIDC_ISSUERS": "http://127.0.0.1:1", "AWS_EC2_METADATA_DISABLED": "1", **more}
    script = f'set -o pipefail; manage() {{ {sys.executable} {ROOT / "manage.py"} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def refusal(ended, *, code=1):
    """The one line that a command ended with."""
    assert ended.returncode == code, ended
    (line,) = ended.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "line",
    [
        "export_history --organization octo-org",
        "deliver",
        "migrate",
    ],
)
def test_a_database_that_is_away_is_told_by_each_command(folder, line):
    said = refusal(store(folder, f"manage {line}", DATABASE_URL=AWAY))
    assert said.startswith("policystore: The database: connection failed: ")
    assert "pa55word" not in said


def test_a_database_without_tables_is_told(tmp_path):
    ended = store(tmp_path / "new", "manage sign_in_link")
    assert refusal(ended).endswith(" was not applied; run `manage.py migrate`.")


@pytest.mark.parametrize("line", ["export_history --organization octo-org", "doctor"])
def test_nobody_who_reads_is_no_failure_to_tell(folder, line):
    ended = store(folder, f"manage {line} | true")
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize("line", ["export_history --organization octo-org", "help"])
def test_output_that_cannot_be_written_is_told(folder, line):
    assert refusal(store(folder, f"manage {line} > /dev/full")) == "policystore: [Errno 28] No space left on device"
    assert refusal(store(folder, f"manage {line} >&-")) == "policystore: Standard output is closed."


def test_a_history_that_cannot_be_written_is_told(folder):
    said = refusal(store(folder, "manage export_history --organization octo-org --output /dev/full"))
    assert said.startswith("CommandError: The history could not be written: ")


@pytest.mark.django_db
@pytest.mark.parametrize("place", ["/", "nowhere/history.csv"])
def test_a_history_that_cannot_be_begun_is_told(place):
    factories.organization()
    with pytest.raises(CommandError, match=r"^The history could not be written: "):
        call_command("export_history", "--organization", "octo-org", "--output", place)


@pytest.mark.parametrize(
    "line",
    [
        f"export_history --organization {BYTES}",
        f"import_inventory {BYTES}",
        f"quickstart --host {BYTES}",
    ],
)
def test_an_argument_that_is_no_text_is_told(folder, line):
    assert "udcff" in refusal(store(folder, f"manage {line}"))


def test_days_that_no_calendar_has_delete_nothing(folder):
    ended = store(folder, "manage prune --days -5")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith("'-5' is not a number of days from 0 to 36500")
    with pytest.raises(CommandError, match=r"'99999999999' is not a number of days from 0 to 36500$"):
        call_command("prune", "--days", "99999999999")


def test_an_address_that_is_none_is_told(folder):
    keys = {"AWS_REGION": "x", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": "nonsense"}
    ended = store(folder, "manage sign_history_heads --to s3://bucket", **keys)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    said = ended.stderr.splitlines()[-1]
    assert said.startswith("CommandError: The heads could not be written to s3://bucket: Invalid endpoint")


def test_a_file_of_spreadsheets_may_come_by_standard_input(folder):
    line = r"printf '\xef\xbb\xbfowner,repository\r\nocto-org,api\r\n' | manage import_inventory -"
    assert store(folder, line).stdout == "1 lines taken, 0 refused\n"
    said = refusal(store(folder, r"printf 'octo-org,caf\xe9\n' | manage import_inventory -"))
    assert said.startswith("CommandError: - cannot be read: 'utf-8' codec can't decode")


def test_letters_that_the_terminal_does_not_have_end_nothing(folder):
    ended = store(folder, "manage backup caf\u00e9.backup", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("caf\\xe9.backup: ")


def test_the_history_is_utf_8_in_every_terminal(folder):
    line = "manage export_history --organization octo-org --format jsonl"
    assert "caf\u00e9" in store(folder, line, PYTHONIOENCODING="latin-1").stdout


def test_who_applies_has_a_name_that_the_history_takes(tmp_path):
    with pytest.raises(CommandError, match=r"^--by is too long \(maximum 255 characters\)\.$"):
        call_command("apply", str(tmp_path), "--by", "x" * 256)


def test_a_user_without_a_name_is_told(monkeypatch, tmp_path):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    with pytest.raises(CommandError, match="Set a name with --by"):
        call_command("apply", str(tmp_path))


def test_with_a_traceback_where_it_is_wanted(folder):
    ended = store(folder, "manage sign_in_link --traceback", DATABASE_URL=AWAY)
    assert "Traceback" in ended.stderr


def test_ctrl_c_is_told(folder):
    environment = {**clean_environment(), "POLICYSTORE_DATA_DIR": str(folder)}
    pipe = folder.parent / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "manage.py", "import_inventory", str(pipe)]
    started = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    with started:
        # It can be opened as soon as the command reads; and is closed again, since a signal right before the command
        # waits for more is only heard after that wait.
        with pipe.open("w"):
            started.send_signal(signal.SIGINT)
        _, told = started.communicate(timeout=60)
    assert (started.returncode, told) == (130, "policystore: Interrupted.\n")
