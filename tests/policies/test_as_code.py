"""Policy as code, through its commands and pages: export, plan, apply, drift, and a store restored from nothing."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Membership, Role
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies import endpoint_sets, exceptions, never_allow
from policystore.policies import staging as staged
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import (
    Attachment,
    EndpointSet,
    ManagedPolicy,
    NeverAllowHost,
    Policy,
    PolicyException,
    StagedVersion,
)
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db
ORGANIZATION, REPOSITORY = Scope.for_organization("octo-org"), Scope.for_repository("octo-org", "hello")
TEXT = "# kept\r\negress-policy: block\nallowed-endpoints: >\n  github.com:443   \n"


@pytest.fixture
def octo():
    return factories.organization("octo-org")


@pytest.fixture
def folder(octo, tmp_path):
    """A folder that holds two policies, the first attached to the organization and a repository."""
    first = factories.policy(octo, "first", TEXT, description="What all may reach")
    attachments.ModifyAttachments(policy=first, add=[ORGANIZATION, REPOSITORY]).apply(by=SYSTEM)
    factories.policy(octo, "second")
    call_command("export", tmp_path / "bundle")
    return tmp_path / "bundle"


def told(capsys, *command, **options):
    capsys.readouterr()
    call_command(*command, **options)
    return capsys.readouterr().out


def digest(capsys, folder):
    return told(capsys, "plan", folder).split("--plan ")[1].strip()


def served(policy):
    return json.loads(policy.served_reply)["allowed_endpoints"]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def attached():
    return dict(Attachment.objects.values_list("scope_key", "policy__name"))


def kinds(name):
    return list(HistoryEvent.objects.filter(subject_name=name).order_by("pk").values_list("kind", flat=True))


def test_the_text_is_exported_byte_for_byte(folder):
    assert (folder / "policies/first/policy.yaml").read_bytes() == TEXT.encode()
    about = (folder / "policies/first/about.yaml").read_text()
    assert about == (
        "description: What all may reach\nattached-to:\n- organization:octo-org\n- repository:octo-org/hello\n"
    )


def test_what_was_exported_changes_nothing(folder, capsys):
    assert told(capsys, "plan", folder) == "Nothing to change.\n"
    call_command("plan", folder, exit_code=True)
    events = HistoryEvent.objects.count()
    assert told(capsys, "apply", folder) == "Nothing to change.\n"
    # Only that both are managed as code now.
    assert HistoryEvent.objects.count() == events + 2
    call_command("apply", folder)
    assert HistoryEvent.objects.count() == events + 2


def test_the_bundle_restores_a_store_from_nothing(folder, tmp_path):
    wanted, before = contents(folder), attached()
    Attachment.objects.all().delete()
    Policy.objects.all().delete()
    Organization.objects.all().delete()
    call_command("apply", folder, by="ann")
    assert attached() == before
    call_command("export", tmp_path / "again")
    assert contents(tmp_path / "again") == wanted


def test_a_plan_shows_each_change_as_a_diff_and_changes_nothing(folder, capsys):
    (folder / "policies/first/policy.yaml").write_bytes(TEXT.replace("block", "audit").encode())
    (folder / "policies/second/about.yaml").write_text("attached-to:\n- repository:octo-org/hello\n")
    (folder / "policies/first/about.yaml").write_text("description: Less\nattached-to:\n- organization:octo-org\n")
    (folder / "policies/third").mkdir()
    (folder / "policies/third/policy.yaml").write_text("egress-policy: audit\n")
    plan = told(capsys, "plan", folder)
    for line in (
        "~ update policy first",
        "    description: Less",
        "    - repository:octo-org/hello",
        "      -egress-policy: block",
        "      +egress-policy: audit",
        "    + repository:octo-org/hello (replaces first)",
        "+ create policy third",
    ):
        assert line in plan.splitlines()
    assert "1 to create, 2 to update." in plan
    assert Policy.objects.count() == 2
    with pytest.raises(SystemExit, match="2"):
        call_command("plan", folder, exit_code=True)


def test_applying_makes_it_so_with_history_that_names_who_and_from_where(folder):
    (folder / "policies/first/policy.yaml").write_text("egress-policy: audit\n")
    (folder / "policies/first/about.yaml").write_text("attached-to:\n- organization:octo-org\n")
    (folder / "policies/second/about.yaml").write_text("attached-to:\n- repository:octo-org/hello\n")
    call_command("apply", folder, by="ann", source="octo-org/policies@1f3a9c")
    assert Policy.objects.get(name="first").text == "egress-policy: audit\n"
    assert attached() == {"organization:octo-org": "first", "repository:octo-org/hello": "second"}
    assert kinds("first") == ["created", "attached", "updated", "detached", "managed"]
    assert kinds("second") == ["created", "attached", "managed"]
    event = HistoryEvent.objects.get(kind="updated")
    assert (event.actor, event.actor_kind, event.reason) == ("ann", "code", "Applied from octo-org/policies@1f3a9c.")


def test_two_policies_can_swap_their_scopes(folder, octo):
    second = Policy.objects.get(name="second")
    attachments.ModifyAttachments(policy=second, add=[Scope.for_repository("octo-org", "other")]).apply(by=SYSTEM)
    (folder / "policies/first/about.yaml").write_text("attached-to:\n- repository:octo-org/other\n")
    (folder / "policies/second/about.yaml").write_text(
        "attached-to:\n- repository:octo-org/hello\n- organization:octo-org\n"
    )
    call_command("apply", folder)
    assert attached() == {
        "repository:octo-org/other": "first",
        "repository:octo-org/hello": "second",
        "organization:octo-org": "second",
    }
    counted = dict(Policy.objects.values_list("name", "attachment_count"))
    assert counted == {"first": 1, "second": 2}


def test_a_plan_that_is_no_longer_true_is_refused(folder, capsys):
    (folder / "policies/second/policy.yaml").write_text("egress-policy: audit\n")
    digest = told(capsys, "plan", folder).split("--plan ")[1].strip()
    policies.DeletePolicy(policy=Policy.objects.get(name="first")).apply(by=SYSTEM)
    with pytest.raises(CommandError, match="review the new plan"):
        call_command("apply", folder, plan=digest)
    assert "+ create policy first" in capsys.readouterr().err
    assert not Policy.objects.filter(name="first").exists()
    digest = told(capsys, "plan", folder).split("--plan ")[1].strip()
    call_command("apply", folder, plan=digest)
    assert Policy.objects.filter(name="first").exists()


def test_a_managed_policy_that_the_folder_lost_is_deleted_or_released(folder, octo, capsys):
    call_command("apply", folder)
    factories.policy(octo, "by-hand")
    shutil.rmtree(folder / "policies/first")
    shutil.rmtree(folder / "policies/second")
    plan = told(capsys, "plan", folder)
    assert "- delete policy first" in plan
    assert "Not managed as code, left unchanged: by-hand" in plan
    call_command("apply", folder, keep_missing=True)
    assert not ManagedPolicy.objects.exists()
    assert kinds("first")[-1] == "released"
    call_command("export", folder)
    call_command("apply", folder)
    shutil.rmtree(folder / "policies/first")
    call_command("apply", folder)
    assert set(Policy.objects.values_list("name", flat=True)) == {"second", "by-hand"}
    assert kinds("first")[-1] == "deleted"


def test_nothing_is_applied_where_anything_is_wrong(folder):
    (folder / "policies/second/policy.yaml").write_text("egress-policy: audit\n")
    (folder / "policies/first/policy.yaml").write_text("egress-policy: maybe\n")
    (folder / "policies/first/about.yaml").write_text("attached-to:\n- organization:elsewhere\n")
    with pytest.raises(CommandError) as refusal:
        call_command("apply", folder)
    assert "policies/first/policy.yaml:1:16: “maybe” is not a valid egress policy." in str(refusal.value)
    assert "organization:elsewhere does not belong to octo-org." in str(refusal.value)
    assert Policy.objects.get(name="second").version == 1


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_what_cannot_be_read_is_told(tmp_path, command):
    with pytest.raises(CommandError, match="is not a folder"):
        call_command(command, tmp_path / "nowhere")
    (tmp_path / "policystore.yaml").write_bytes(b"\xff")
    with pytest.raises(CommandError, match="cannot be read as UTF-8"):
        call_command(command, tmp_path)


def test_exporting_again_removes_what_is_gone_and_leaves_other_files(folder, octo):
    (folder / "README.md").write_text("ours")
    policies.DeletePolicy(policy=Policy.objects.get(name="second")).apply(by=SYSTEM)
    call_command("export", folder)
    assert not (folder / "policies/second").exists()
    assert (folder / "README.md").read_text() == "ours"


def test_drift_is_shown_where_people_look(folder, octo):
    call_command("apply", folder, source="octo-org/policies@1f3a9c")
    client = Client()
    client.force_login(factories.member(octo), backend="policystore.accounts.access.RoleBackend")
    first = Policy.objects.get(name="first")
    base = f"/organizations/octo-org/policy-store/{first.pk}/"
    assert "No drift" in client.get(base).content.decode()
    assert "As code" in client.get("/organizations/octo-org/policy-store/").content.decode()
    assert "managed as code from octo-org/policies@1f3a9c" in client.get(f"{base}edit/").content.decode()
    policies.UpdatePolicy(
        policy=first, name="first", description="", text="egress-policy: audit\n", expected_version=1
    ).apply(by=SYSTEM)
    attachments.ModifyAttachments(policy=first, remove=[REPOSITORY]).apply(by=SYSTEM)
    assert "Drifted" in client.get(base).content.decode()
    page = client.get(f"{base}managed/").content.decode()
    assert "The next apply undoes the changes below." in page
    assert '<li class="scope-removed">' in page
    assert "What all may reach → (none)" in page
    assert client.post(f"{base}managed/").status_code == 302
    assert client.get(f"{base}managed/").status_code == 404
    assert kinds("first")[-1] == "released"


def test_another_organization_is_left_alone(folder, capsys):
    theirs = factories.organization("theirs")
    factories.policy(theirs, "first", "egress-policy: audit\n")
    (folder / "policies/second/policy.yaml").write_text("egress-policy: audit\n")
    call_command("apply", folder)
    assert Policy.objects.get(organization=theirs).version == 1
    with pytest.raises(CommandError, match="Choose an organization with --organization"):
        call_command("export", folder)
    assert "0 policies" not in told(capsys, "export", folder, organization="Theirs")


def test_endpoint_sets_come_along_and_change_the_policies_that_include_them(octo, tmp_path, capsys):
    endpoint_sets.create(organization=octo, name="base", text="# ours\ngithub.com:443\n", by=SYSTEM)
    made = factories.policy(octo, "ci", "egress-policy: block\nendpoint-sets: base\n")
    call_command("export", tmp_path)
    assert (tmp_path / "endpoint-sets/base/endpoints.yaml").read_text() == "# ours\ngithub.com:443\n"
    Policy.objects.all().delete()
    EndpointSet.objects.all().delete()
    call_command("apply", tmp_path)
    restored = Policy.objects.get(name="ci")
    assert restored.reply == made.reply
    (tmp_path / "endpoint-sets/base/endpoints.yaml").write_text("github.com:443\nghcr.io:443\n")
    plan = told(capsys, "plan", tmp_path)
    assert "~ update endpoint set base" in plan.splitlines()
    assert "      +ghcr.io:443" in plan.splitlines()
    call_command("apply", tmp_path)
    restored.refresh_from_db()
    assert (restored.version, "ghcr.io:443" in restored.reply) == (2, True)
    assert told(capsys, "plan", tmp_path) == "Nothing to change.\n"


def test_a_set_that_is_nowhere_is_told_of(folder):
    (folder / "policies/second/policy.yaml").write_text("egress-policy: audit\nendpoint-sets: base\n")
    with pytest.raises(CommandError, match=r"policies/second/policy.yaml:2:16: There is no endpoint set named “base"):
        call_command("plan", folder)
    (folder / "endpoint-sets/base").mkdir(parents=True)
    (folder / "endpoint-sets/base/endpoints.yaml").write_text("# nothing\n")
    with pytest.raises(CommandError, match=r"endpoint-sets/base/endpoints.yaml:1:1: The set lists no endpoints"):
        call_command("plan", folder)


def test_a_plan_refuses_hosts_that_are_never_allowed(folder, octo):
    never_allow.add(organization=octo, host="github.com", reason="Ours is elsewhere.", by=SYSTEM)
    (folder / "policies/second/policy.yaml").write_text("egress-policy: audit\nallowed-endpoints: github.com:443\n")
    with pytest.raises(CommandError, match=r"policies/second/policy.yaml:2:20: .*never"):
        call_command("plan", folder)


ENDS = timezone.now().replace(second=0, microsecond=0) + timedelta(days=30)
STAGED = "# next\r\negress-policy: block\nallowed-endpoints: ghcr.io:443\n"


@pytest.fixture
def full(octo, folder):
    """The folder with a never-allow host, an exception and a staged version beside the policies."""
    first = Policy.objects.get(name="first")
    never_allow.add(organization=octo, host="*.evil.example", reason="It leaks", by=SYSTEM)
    factories.member(octo, username="zoe")
    values = {"reason": "A vendor moves", "expires_at": ENDS, "owner": "zoe"}
    exceptions.AddException(policy=first, endpoint="files.example.com:443", **values).apply(by=SYSTEM)
    version = staged.StageVersion(policy=first, text=STAGED, live_version=1, expected_event=None).apply(by=SYSTEM)
    staged.SetCanaries(policy=first, scopes=[REPOSITORY], expected_event=version.event_id).apply(by=SYSTEM)
    call_command("export", folder)
    return folder


def test_hosts_exceptions_and_staged_versions_are_restored_from_nothing(full, tmp_path, capsys):
    assert (full / "policies/first/staged.yaml").read_bytes() == STAGED.encode()
    wanted, before = contents(full), attached()
    assert told(capsys, "plan", full) == "Nothing to change.\n"
    for rows in (Attachment, Policy, NeverAllowHost, Membership, Organization):
        rows.objects.all().delete()
    plan = told(capsys, "plan", full).splitlines()
    for line in (
        "+ create never-allow host *.evil.example (It leaks)",
        f"    + exception files.example.com:443 until {ENDS:%Y-%m-%d %H:%M} UTC, owner zoe: A vendor moves",
        "    + staged version",
        "      +allowed-endpoints: ghcr.io:443",
        "    + canary repository:octo-org/hello",
    ):
        assert line in plan
    call_command("apply", full, by="ann")
    assert attached() == before
    restored = Policy.objects.get(name="first")
    assert served(restored) == ["github.com:443", "files.example.com:443"]
    assert StagedVersion.objects.get().text == STAGED
    assert set(kinds("first")) >= {"created", "attached", "exception_added", "staged", "canaries_changed", "managed"}
    assert HistoryEvent.objects.filter(kind="never_allow_added").latest("pk").actor == "ann"
    call_command("export", tmp_path / "again")
    assert contents(tmp_path / "again") == wanted
    events = HistoryEvent.objects.count()
    call_command("apply", full)
    assert HistoryEvent.objects.count() == events


def test_what_has_no_effect_any_more_stays_in_the_store_and_out_of_the_folder(octo, full, capsys):
    first = Policy.objects.get(name="first")
    for endpoint in ("ghcr.io:443", "quay.io:443"):
        exceptions.AddException(policy=first, endpoint=endpoint, reason="x", expires_at=ENDS).apply(by=SYSTEM)
    never_allow.add(organization=octo, host="files.example.com", reason="It leaks, too", by=SYSTEM)
    listing = f"{TEXT}  ghcr.io:443\n"
    policies.UpdatePolicy(policy=first, name="first", description="", text=listing, expected_version=1).apply(by=SYSTEM)
    attachments.ModifyAttachments(policy=first, remove=[ORGANIZATION, REPOSITORY]).apply(by=SYSTEM)
    call_command("export", full)
    assert "files.example.com" not in (full / "policies/first/exceptions.yaml").read_text()
    assert told(capsys, "plan", full) == "Nothing to change.\n"
    call_command("apply", full)
    assert PolicyException.objects.active().count() == 3
    assert StagedVersion.objects.get().canaries.exists()
    for rows in (Attachment, Policy, NeverAllowHost, Organization):
        rows.objects.all().delete()
    call_command("apply", full)
    assert served(Policy.objects.get(name="first")) == ["github.com:443", "ghcr.io:443", "quay.io:443"]


def test_an_exception_that_the_folder_lists_still_is_not_added_again_once_its_host_may_be_allowed(octo, full):
    never_allow.add(organization=octo, host="files.example.com", reason="It leaks, too", by=SYSTEM)
    call_command("apply", full)
    assert served(Policy.objects.get(name="first")) == ["github.com:443", "files.example.com:443"]
    assert PolicyException.objects.get().ended_at is None


def test_a_folder_without_those_files_changes_nothing_about_them(full, capsys):
    for name in ("never-allow.yaml", *(f"policies/first/{one}.yaml" for one in ("exceptions", "staged", "canaries"))):
        (full / name).unlink()
    assert told(capsys, "plan", full) == "Nothing to change.\n"
    (full / "policies/first/policy.yaml").write_text("egress-policy: audit\n")
    call_command("apply", full)
    assert NeverAllowHost.objects.exists()
    assert StagedVersion.objects.get().canaries.exists()
    assert PolicyException.objects.active().exists()


def test_a_plan_tells_when_an_exception_ends_to_the_second(full, capsys):
    path = full / "policies/first/exceptions.yaml"
    plans = []
    for second in (10, 50):
        path.write_text(
            "exceptions:\n- endpoint: files.example.com:443\n  owner: zoe\n  reason: A vendor moves\n"
            f"  until: {ENDS.replace(second=second).isoformat()}\n"
        )
        plans.append(told(capsys, "plan", full))
        assert f"{ENDS:%Y-%m-%d %H:%M}:{second} UTC" in plans[-1]
    digest = plans[0].split("--plan ")[1].strip()
    with pytest.raises(CommandError, match="review the new plan"):
        call_command("apply", full, plan=digest)


def test_files_that_list_less_take_away_and_tell_so_in_the_history(full, capsys):
    (full / "never-allow.yaml").write_text("hosts: []\n")
    (full / "policies/first/exceptions.yaml").write_text("exceptions: []\n")
    (full / "policies/first/staged.yaml").write_text("\n")
    (full / "policies/first/canaries.yaml").unlink()
    plan = told(capsys, "plan", full).splitlines()
    assert "- delete never-allow host *.evil.example" in plan
    assert "    - staged version" in plan
    assert "1 to update, 1 to delete." in plan[-1]
    call_command("apply", full, by="ann")
    assert not NeverAllowHost.objects.exists()
    assert not StagedVersion.objects.exists()
    assert not PolicyException.objects.active().exists()
    assert {"exception_ended", "staged_discarded"} <= set(kinds("first"))
    assert HistoryEvent.objects.filter(kind="never_allow_removed", actor="ann").exists()
    assert told(capsys, "plan", full) == "Nothing to change.\n"


def test_what_differs_in_them_is_changed_and_what_ran_out_is_passed_over(full, capsys):
    (full / "never-allow.yaml").write_text("hosts:\n- {host: '*.evil.example', reason: It leaks a lot}\n")
    written = (
        f"exceptions:\n- {{endpoint: files.example.com, owner: '@ann', reason: Longer, until: '{ENDS:%Y-%m-%d}'}}\n"
    )
    old = "- {endpoint: old.example:443, owner: ann, reason: x, until: 2020-01-01}\n"
    (full / "policies/first/exceptions.yaml").write_text(written + old)
    (full / "policies/first/canaries.yaml").write_text("scopes: ['organization:octo-org']\n")
    plan = told(capsys, "plan", full)
    assert "~ update never-allow host *.evil.example (It leaks a lot)" in plan
    assert "Expired, ignored: exception of first, old.example:443" in plan
    assert "    + canary organization:octo-org" in plan
    digest = plan.split("--plan ")[1].strip()
    call_command("apply", full, plan=digest)
    assert NeverAllowHost.objects.get().reason == "It leaks a lot"
    [open_one] = PolicyException.objects.active()
    assert (open_one.endpoint, open_one.owner, open_one.reason) == ("files.example.com:443", "ann", "Longer")
    assert StagedVersion.objects.get().canaries.get().scope_key == "organization:octo-org"
    assert "Nothing to change." in told(capsys, "plan", full)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (
            "never-allow.yaml",
            "hosts:\n- {host: 'a b', reason: x}\n",
            "never-allow.yaml:2:1: “a b” is not a valid",
        ),
        (
            "policies/first/exceptions.yaml",
            "exceptions:\n- {endpoint: x.evil.example, owner: a, reason: x, until: 2999-01-01}\n",
            r"policies/first/exceptions.yaml:2:1: x.evil.example:443 is never allowed \(\*.evil.example\): It leaks",
        ),
        (
            "policies/first/exceptions.yaml",
            "exceptions:\n- {endpoint: github.com, owner: a, reason: x, until: 2999-01-01}\n",
            r"first already lists github.com:443(.|\n)*is more than 366 days away",
        ),
        (
            "policies/first/staged.yaml",
            "egress-policy: maybe\n",
            r"first/staged.yaml:1:16: “maybe” is not a valid egress",
        ),
        (
            "policies/first/canaries.yaml",
            "scopes: ['cluster:elsewhere/k8s']\n",
            r"policies/first/canaries.yaml:1:1: No job of cluster:elsewhere/k8s gets first.",
        ),
        (
            "never-allow.yaml",
            "hosts:\n- {host: github.com, reason: Ours}\n",
            r"policies/first/policy.yaml:4:3: .*never",
        ),
    ],
)
def test_a_plan_tells_what_is_wrong_with_them(full, name, text, why):
    (full / name).write_text(text)
    for command in ("plan", "apply"):
        with pytest.raises(CommandError, match=why):
            call_command(command, full)


def test_a_plan_names_the_exceptions_that_stay_and_binds_what_runners_get(octo, folder, capsys):
    policy = Policy.objects.get(name="second")
    until = timezone.now() + timedelta(days=3)

    def allow(endpoint):
        values = {"endpoint": endpoint, "reason": "Needed", "expires_at": until}
        exceptions.AddException(policy=policy, **values).apply(by=SYSTEM)

    (folder / "policies/second/policy.yaml").write_text("egress-policy: block\nendpoint-sets: [npm]\n")
    npm = factories.endpoint_set(octo, "npm", "registry.octo1.org:443\n")
    allow("late.example:443")
    assert "exception late.example:443" in told(capsys, "plan", folder)
    plans = [digest(capsys, folder)]
    allow("later.example:443")
    plans.append(digest(capsys, folder))
    values = {"name": "npm", "description": "", "text": "registry.octo2.org:443\n", "expected_version": 1}
    endpoint_sets.UpdateEndpointSet(endpoint_set=npm, **values).apply(by=SYSTEM)
    for plan in plans:
        with pytest.raises(CommandError, match="changed since the plan"):
            call_command("apply", folder, plan=plan)
    call_command("apply", folder, plan=digest(capsys, folder))
    policy.refresh_from_db()
    assert sorted(served(policy)) == ["late.example:443", "later.example:443", "registry.octo2.org:443"]


def test_a_plan_of_rules_binds_every_policy_that_they_reach(octo, folder, capsys):
    factories.endpoint_set(octo, "npm", "registry.octo1.org:443\n")
    more = folder.parent / "more"
    call_command("export", more)
    (more / "endpoint-sets/npm/endpoints.yaml").write_text("registry.octo1.org:443\nevil.example:443\n")
    plan = digest(capsys, more)
    factories.policy(octo, "third", "egress-policy: block\nendpoint-sets: [npm]\n")
    with pytest.raises(CommandError, match="changed since the plan"):
        call_command("apply", more, plan=plan)


def test_a_plan_says_which_policies_only_stop_being_managed(octo, folder, capsys):
    call_command("apply", folder)
    shutil.rmtree(folder / "policies/second")
    deleting = digest(capsys, folder)
    releasing = told(capsys, "plan", folder, keep_missing=True)
    assert "release policy second" in releasing
    with pytest.raises(CommandError, match="changed since the plan"):
        call_command("apply", folder, plan=deleting, keep_missing=True)
    call_command("apply", folder, plan=releasing.split("--plan ")[1].strip(), keep_missing=True)
    assert Policy.objects.filter(name="second").exists()


def test_only_an_owner_approves_other_never_allow_hosts(octo, full, capsys):
    for name, role in (("adam", Role.SECURITY_ADMIN), ("olga", Role.OWNER)):
        factories.member(octo, role, name)
    factories.four_eyes_on(octo)
    (full / "never-allow.yaml").write_text("hosts: []\n")
    with pytest.raises(CommandError, match="--approved-by"):
        call_command("apply", full, by="ann")
    with pytest.raises(CommandError, match="only an owner"):
        call_command("apply", full, by="ann", approved_by="adam")
    call_command("apply", full, by="ann", approved_by="olga", plan=digest(capsys, full))
    assert not NeverAllowHost.objects.exists()


def test_a_staged_version_may_include_a_set_that_the_store_alone_has(octo, full):
    factories.endpoint_set(octo, "npm", "registry.octo1.org:443\n")
    (full / "policies/first/staged.yaml").write_text(f"{STAGED}endpoint-sets: [npm]\n")
    call_command("apply", full)
    assert "registry.octo1.org:443" in StagedVersion.objects.get().reply


def test_a_plan_tells_of_a_set_that_lists_what_is_never_allowed(octo, full, capsys):
    factories.endpoint_set(octo, "npm", "registry.octo1.org:443\n")
    call_command("export", full)
    (full / "endpoint-sets/npm/endpoints.yaml").write_text("registry.octo1.org:443\nx.evil.example:443\n")
    for command in ("plan", "apply"):
        with pytest.raises(CommandError, match=r"endpoint-sets/npm/endpoints.yaml:2:1: .*never"):
            call_command(command, full)


def test_a_set_that_is_saved_already_may_list_what_is_never_allowed_since(octo, full, capsys):
    factories.endpoint_set(octo, "npm", "registry.octo1.org:443\n")
    never_allow.add(organization=octo, host="registry.octo1.org", reason="Ours is elsewhere", by=SYSTEM)
    call_command("export", full)
    assert told(capsys, "plan", full) == "Nothing to change.\n"
