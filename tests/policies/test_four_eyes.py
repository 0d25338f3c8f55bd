"""Four eyes: what waits for a second person, who may decide, and what the history tells of it."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from policystore.accounts import api_keys
from policystore.accounts.models import SYSTEM, Actor, ApiKey, Membership, Role
from policystore.audit_log.models import HistoryEvent
from policystore.policies import endpoint_sets, exceptions, never_allow
from policystore.policies import staging as staged
from policystore.policies.approvals import commands, effects
from policystore.policies.approvals import requests as change_requests
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import (
    Attachment,
    ChangeRequest,
    EndpointSet,
    FourEyes,
    NeverAllowHost,
    Policy,
    PolicyException,
)
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db
AUDIT, BLOCK = "egress-policy: audit\n", factories.TEXT
STORE = "/organizations/octo-org/policy-store/"
SETTING = "/organizations/octo-org/settings/four-eyes/"
ORGANIZATION, REPOSITORY = "organization:octo-org", "repository:octo-org/hello"


@pytest.fixture
def octo():
    organization = factories.organization("octo-org")
    factories.four_eyes_on(organization)
    return organization


@pytest.fixture
def people(octo):
    return {name: _client(octo, name) for name in ("maria", "jonas")}


def _client(organization, name, role=Role.SECURITY_ADMIN):
    client = Client()
    client.force_login(factories.member(organization, role, name), backend="policystore.accounts.access.RoleBackend")
    return client


def policy(octo, text=BLOCK, *, scopes=()):
    made = factories.policy(octo, "ci", text)
    attachments.ModifyAttachments(policy=made, add=[Scope.from_key(key) for key in scopes]).apply(by=SYSTEM)
    return made


def edit(client, made, text):
    values = {"name": made.name, "description": "", "text": text, "version": made.version}
    return client.post(f"{STORE}{made.pk}/edit/", values)


def attach(client, made, *, add=(), remove=(), replacing=()):
    values = {"action": "save", "add": list(add), "remove": list(remove), "replacing": list(replacing)}
    return client.post(f"{STORE}{made.pk}/attach/", values)


def open_request():
    return ChangeRequest.objects.get(status="open")


def decide(client, decision, comment=""):
    return client.post(
        f"{STORE}change-requests/{open_request().pk}/", {"decision": decision, "comment": comment}, follow=True
    )


def told(made):
    events = HistoryEvent.objects.filter(subject_type="policy", subject_id=made.pk).order_by("pk")
    return [(event.kind, event.actor, event.details.get("approved_by", "")) for event in events]


def test_an_edit_of_a_policy_that_blocks_waits_until_somebody_else_approves_it(octo, people):
    made = policy(octo)
    answer = edit(people["maria"], made, AUDIT)
    assert answer["Location"] == f"{STORE}change-requests/{open_request().pk}/"
    made.refresh_from_db()
    assert (made.text, made.version) == (BLOCK, 1)
    page = people["jonas"].get(answer["Location"]).content.decode()
    assert "Update policy: ci" in page
    assert "<mark>" in page
    decide(people["jonas"], "approve", "Agreed in the meeting.")
    made.refresh_from_db()
    assert (made.text, made.version, made.changed_by) == (AUDIT, 2, "maria")
    assert told(made)[1:] == [
        ("change_requested", "maria", ""),
        ("updated", "maria", "jonas"),
        ("change_approved", "jonas", ""),
    ]
    history = people["maria"].get(f"{STORE}{made.pk}/history/").content.decode()
    assert "Agreed in the meeting." in history
    assert "approved by jonas" in history


@pytest.mark.parametrize(
    ("before", "after", "waits"),
    [(BLOCK, AUDIT, 1), (AUDIT, BLOCK, 1), (BLOCK, f"{BLOCK}# x\n", 1), (AUDIT, f"{AUDIT}# x\n", 0)],
)
def test_an_edit_waits_where_the_policy_blocks_before_or_after(octo, people, before, after, waits):
    made = policy(octo, before)
    edit(people["maria"], made, after)
    assert ChangeRequest.objects.count() == waits
    assert Policy.objects.get().version == 2 - waits


@pytest.mark.parametrize(
    ("text", "add", "waits"),
    [(BLOCK, REPOSITORY, 1), (AUDIT, REPOSITORY, 0), (AUDIT, ORGANIZATION, 1)],
)
def test_attaching_and_detaching_wait_for_policies_that_block_and_for_the_organization(octo, people, text, add, waits):
    made = policy(octo, text)
    attach(people["maria"], made, add=[add])
    assert ChangeRequest.objects.count() == waits
    if waits:
        page = people["jonas"].get(f"{STORE}change-requests/{open_request().pk}/").content.decode()
        assert f"<span>{Scope.from_key(add).type.label}: {Scope.from_key(add).label}</span>" in page
        decide(people["jonas"], "approve")
    assert Attachment.objects.get().scope_key == add
    people["maria"].post(f"{STORE}{made.pk}/detach/")
    assert ChangeRequest.objects.count() == 2 * waits
    assert Attachment.objects.count() == waits


def test_taking_a_scope_from_a_policy_that_blocks_waits(octo, people):
    holder = policy(octo, scopes=[REPOSITORY])
    taker = factories.policy(octo, "taker", AUDIT)
    attach(people["maria"], taker, add=[REPOSITORY], replacing=[f"{holder.pk} {REPOSITORY}"])
    assert Attachment.objects.get().policy_id == holder.pk
    page = people["jonas"].get(f"{STORE}change-requests/{open_request().pk}/").content.decode()
    assert "<span>ci (block) → taker (audit)</span>" in page
    decide(people["jonas"], "approve")
    assert Attachment.objects.get().policy_id == taker.pk


@pytest.mark.parametrize("has_canaries", [True, False])
@pytest.mark.parametrize("change", [{"add": ["repository:octo-org/other"]}, {"remove": [REPOSITORY]}])
def test_the_scopes_of_a_policy_wait_where_its_canaries_are_blocked(octo, people, has_canaries, change):
    made = policy(octo, AUDIT, scopes=[REPOSITORY])
    version = staged.StageVersion(policy=made, text=BLOCK, live_version=1, expected_event=None).apply(by=SYSTEM)
    scopes = [Scope.from_key(ORGANIZATION)] if has_canaries else []
    staged.SetCanaries(policy=made, scopes=scopes, expected_event=version.event_id).apply(by=SYSTEM)
    attach(people["maria"], made, **change)
    assert ChangeRequest.objects.exists() == has_canaries
    assert (Attachment.objects.count() == 1 and Attachment.objects.get().scope_key == REPOSITORY) == has_canaries


def test_deleting_waits_as_one_change(octo, people):
    made = policy(octo, AUDIT, scopes=[ORGANIZATION])
    people["maria"].post(f"{STORE}{made.pk}/delete/", {"name": "ci"})
    assert open_request().verb == policies.DeletePolicy.verb
    decide(people["jonas"], "approve")
    assert not Policy.objects.exists()
    assert told(made)[-3:] == [
        ("detached", "maria", "jonas"),
        ("deleted", "maria", "jonas"),
        ("change_approved", "jonas", ""),
    ]


def test_creating_a_policy_does_not_wait(octo, people):
    people["maria"].post(f"{STORE}new/", {"name": "fresh", "description": "", "text": BLOCK})
    assert Policy.objects.get().name == "fresh"


def test_nobody_approves_what_they_asked_for(octo, people):
    edit(people["maria"], policy(octo), AUDIT)
    answer = decide(people["maria"], "approve")
    assert answer.status_code == 409
    assert "You cannot approve your own request" in answer.content.decode()
    assert open_request().requested_by == "maria"


@pytest.mark.parametrize(
    ("who", "decision", "status"), [("jonas", "decline", "declined"), ("maria", "withdraw", "withdrawn")]
)
def test_a_request_that_is_declined_or_withdrawn_changes_nothing(octo, people, who, decision, status):
    made = policy(octo)
    edit(people["maria"], made, AUDIT)
    decide(people[who], decision, "Not \0now.")
    settled = ChangeRequest.objects.get()
    assert (settled.status, settled.decided_by, settled.comment) == (status, who, "Not now.")
    assert Policy.objects.get().version == 1
    assert told(made)[-1] == (f"change_{status}", who, "")
    assert HistoryEvent.objects.latest("pk").reason == "Not now."
    page = people["maria"].get(f"{STORE}change-requests/?show=decided").content.decode()
    assert "Update policy" in page


def test_only_the_one_who_asked_withdraws(octo, people):
    edit(people["maria"], policy(octo), AUDIT)
    assert decide(people["jonas"], "withdraw").status_code == 409
    assert open_request()


def test_a_request_is_decided_once(octo, people):
    edit(people["maria"], policy(octo), AUDIT)
    waiting = open_request()
    decide(people["jonas"], "approve")
    with pytest.raises(change_requests.CannotDecide, match="has already settled this request"):
        change_requests.decline(request=waiting, by=Actor("jonas"))


def test_a_request_that_no_longer_fits_is_refused_and_stays(octo, people):
    made = policy(octo)
    edit(people["maria"], made, AUDIT)
    policies.UpdatePolicy(policy=made, name="ci", description="", text=f"{BLOCK}# x\n", expected_version=1).apply(
        by=SYSTEM
    )
    answer = decide(people["jonas"], "approve")
    assert answer.status_code == 409
    assert "This change can no longer be made" in answer.content.decode()
    assert open_request()
    assert Policy.objects.get().version == 2


def test_asking_twice_for_the_same_is_one_request(octo, people):
    made = policy(octo)
    for _ in range(2):
        edit(people["maria"], made, AUDIT)
    assert ChangeRequest.objects.count() == 1


def test_a_system_is_told_that_its_change_waits(octo, people):
    key, made = factories.management_key(octo), policy(octo, scopes=[REPOSITORY])
    headers = {"Authorization": f"Bearer {key}"}
    address = "/v1/github/octo-org/actions/policies/ci"
    body = {"owner": "octo-org", "policyName": "ci", "allowed_endpoints": None, "egress_policy": "audit"}
    for method, target, sent in (
        ("POST", address, body),
        ("POST", f"{address}/attach", {"org": {"name": "octo-org", "apply_to_org": True, "repos": []}, "clusters": []}),
        ("DELETE", address, None),
    ):
        answer = ask(method, target, headers, sent)
        assert (answer.status, answer.json()["error"]) == (409, "needs_approval"), (method, target)
    assert ChangeRequest.objects.filter(requested_by="terraform", requested_by_kind="api_key").count() == 3
    assert json.loads(made.reply)["egress_policy"] == "block"
    update = ChangeRequest.objects.get(verb=policies.UpdatePolicy.verb)
    change_requests.approve(request=update, by=Actor("jonas"))
    assert ask("POST", address, headers, body).status == 200


def test_policies_as_code_name_their_second_person(octo, people, tmp_path, capsys):
    _client(octo, "auditor", Role.AUDITOR)
    factories.user("stranger")
    policy(octo)
    call_command("export", tmp_path)
    (tmp_path / "policies/ci/policy.yaml").write_text(AUDIT)
    with pytest.raises(CommandError, match="--approved-by"):
        call_command("apply", tmp_path, by="maria")
    with pytest.raises(CommandError, match="Name a second person"):
        call_command("apply", tmp_path, by="maria", approved_by="Maria")
    for name, why in (("nobody", "not a member"), ("stranger", "not a member"), ("auditor", "may not change policies")):
        with pytest.raises(CommandError, match=why):
            call_command("apply", tmp_path, by="maria", approved_by=name)
    assert Policy.objects.get().version == 1
    with pytest.raises(CommandError, match="--plan"):
        call_command("apply", tmp_path, by="maria", approved_by=" Jonas ")
    capsys.readouterr()
    call_command("plan", tmp_path)
    plan = capsys.readouterr().out.split("--plan ")[1].strip()
    call_command("apply", tmp_path, by="maria", approved_by=" Jonas ", plan=plan)
    event = HistoryEvent.objects.get(kind="updated")
    assert (event.actor, event.details) == ("maria", {"approved_by": "jonas"})


def test_switching_off_takes_a_second_owner(octo):
    first, second = _client(octo, "first", Role.OWNER), _client(octo, "second", Role.OWNER)
    admin = _client(octo, "admin")
    address = "/organizations/octo-org/settings/four-eyes/"
    first.post(address, {"on": "0"})
    assert FourEyes.objects.filter(organization=octo).exists()
    assert decide(admin, "approve").status_code == 403
    decide(second, "approve")
    assert not FourEyes.objects.filter(organization=octo).exists()
    first.post(address, {"on": "1"})
    assert FourEyes.objects.filter(organization=octo).exists()
    kinds = HistoryEvent.objects.filter(subject_type="organization").order_by("pk").values_list("kind", flat=True)
    assert list(kinds) == ["four_eyes_on", "change_requested", "four_eyes_off", "change_approved", "four_eyes_on"]


@pytest.mark.parametrize("mode", ["1", "keys"])
@pytest.mark.parametrize("others", [[], [Role.AUDITOR]])
def test_four_eyes_need_two_members_who_may_approve(mode, others):
    organization = factories.organization("octo-org")
    owner = _client(organization, "first", Role.OWNER)
    for number, role in enumerate(others):
        factories.member(organization, role, f"other-{number}")
    answer = owner.post(SETTING, {"on": mode})
    assert answer.status_code == 422
    assert "at least two members who may approve changes, and the organization has only one" in answer.content.decode()
    assert not FourEyes.objects.exists()
    assert not HistoryEvent.objects.exists()
    factories.member(organization, Role.SECURITY_ADMIN, "second")
    assert owner.post(SETTING, {"on": mode}).status_code == 302
    assert FourEyes.objects.exists()


@pytest.mark.parametrize("role", ["", Role.AUDITOR])
def test_an_approver_that_four_eyes_need_is_neither_removed_nor_demoted(role):
    organization = factories.organization("octo-org")
    owner = _client(organization, "first", Role.OWNER)
    factories.member(organization, Role.SECURITY_ADMIN, "second")
    owner.post(SETTING, {"on": "1"})
    needed = Membership.objects.get(user__username="second")
    address = f"/organizations/octo-org/settings/members/{needed.pk}/{'' if role else 'remove/'}"
    page = owner.post(address, {"role": role}, follow=True).content.decode()
    assert "Four eyes are on, and need at least 2 members who may approve changes." in page
    needed.refresh_from_db()
    assert needed.role == Role.SECURITY_ADMIN
    owner.post(address, {"role": Role.OWNER})
    factories.member(organization, Role.SECURITY_ADMIN, "third")
    owner.post(address, {"role": role})
    assert set(Membership.objects.filter(pk=needed.pk).values_list("role", flat=True)) == ({role} if role else set())


def test_an_owner_turns_off_four_eyes_alone_once_nobody_else_may_approve():
    organization = factories.organization("octo-org")
    owner = _client(organization, "first", Role.OWNER)
    factories.member(organization, Role.SECURITY_ADMIN, "second")
    owner.post(SETTING, {"on": "1"})
    # As when the person leaves the organization on GitHub.
    Membership.objects.filter(user__username="second").delete()
    owner.post(SETTING, {"on": "0"})
    assert not FourEyes.objects.exists()
    assert not ChangeRequest.objects.exists()
    assert HistoryEvent.objects.latest("pk").kind == "four_eyes_off"


def test_without_the_setting_nothing_waits():
    organization = factories.organization("octo-org")
    made = policy(organization, scopes=[ORGANIZATION])
    edit(_client(organization, "maria"), made, AUDIT)
    assert Policy.objects.get().version == 2
    assert not ChangeRequest.objects.exists()


def test_no_one_of_another_organization_sees_or_decides(octo, people):
    edit(people["maria"], policy(octo), AUDIT)
    stranger = _client(factories.organization("theirs"), "stranger", Role.OWNER)
    for owner in ("octo-org", "theirs"):
        address = f"/organizations/{owner}/policy-store/change-requests/{open_request().pk}/"
        assert stranger.get(address).status_code == 404
        assert stranger.post(address, {"decision": "approve"}).status_code == 404
    assert open_request()


def test_the_sidebar_marks_one_page(octo, people):
    for address, label in (("change-requests/", "Change Requests"), ("", "Policy Store")):
        page = people["maria"].get(f"{STORE}{address}").content.decode()
        marked = page.split('<a class="nav-link"')[1:]
        assert [label in link for link in marked if 'aria-current="page"' in link.split(">")[0]] == [True]


@pytest.mark.parametrize("wider", [ORGANIZATION, REPOSITORY, "cluster:octo-org/dev-k8s"])
def test_shadowing_a_policy_that_blocks_waits(octo, people, wider):
    policy(octo, scopes=[wider])
    auditing = factories.policy(octo, "auditing", AUDIT)
    attach(people["maria"], auditing, add=["workflow:octo-org/hello/ci.yml"])
    assert open_request().subject_name == "auditing"
    assert not Attachment.objects.filter(policy=auditing).exists()


def test_attaching_beside_a_policy_that_blocks_does_not_wait(octo, people):
    policy(octo, scopes=[REPOSITORY])
    auditing = factories.policy(octo, "auditing", AUDIT)
    attach(people["maria"], auditing, add=["repository:octo-org/other"])
    assert Attachment.objects.filter(policy=auditing).exists()


WORKFLOW = "workflow:octo-org/hello/ci.yml"


@pytest.mark.parametrize("wider", [ORGANIZATION, REPOSITORY, "cluster:octo-org/dev-k8s"])
@pytest.mark.parametrize("way", ["attach", "detach", "delete"])
def test_uncovering_a_policy_that_blocks_waits(octo, people, wider, way):
    policy(octo, scopes=[wider])
    auditing = factories.policy(octo, "auditing", AUDIT)
    attachments.ModifyAttachments(policy=auditing, add=[Scope.from_key(WORKFLOW)]).apply(by=SYSTEM)
    values = {"action": "save", "remove": [WORKFLOW], "name": "auditing" if way == "delete" else ""}
    people["maria"].post(f"{STORE}{auditing.pk}/{way}/", values)
    assert open_request().subject_name == "auditing"
    assert Attachment.objects.filter(policy=auditing).exists()
    decide(people["jonas"], "approve")
    assert not Attachment.objects.filter(scope_key=WORKFLOW).exists()


def test_neither_waits_where_an_audit_stands_between_the_scope_and_the_policy_that_blocks(octo, people):
    policy(octo, scopes=[ORGANIZATION])
    between, narrow = (factories.policy(octo, name, AUDIT) for name in ("between", "narrow"))
    attachments.ModifyAttachments(policy=between, add=[Scope.from_key(REPOSITORY)]).apply(by=SYSTEM)
    attach(people["maria"], narrow, add=[WORKFLOW])
    assert Attachment.objects.filter(policy=narrow).exists()
    people["maria"].post(f"{STORE}{narrow.pk}/detach/")
    assert not ChangeRequest.objects.exists()
    assert not Attachment.objects.filter(policy=narrow).exists()


def test_a_policy_that_loses_two_levels_at_once_waits_for_what_is_behind_both(octo, people):
    policy(octo, scopes=[ORGANIZATION])
    auditing = factories.policy(octo, "auditing", AUDIT)
    attachments.ModifyAttachments(policy=auditing, add=[Scope.from_key(key) for key in (REPOSITORY, WORKFLOW)]).apply(
        by=SYSTEM
    )
    people["maria"].post(f"{STORE}{auditing.pk}/detach/")
    assert open_request().subject_name == "auditing"


def test_a_change_that_this_release_does_not_know_is_told_of(octo, people):
    made = policy(octo)
    change = commands.Change("policy.unheard-of", octo, ("policy", made.pk, made.name), {"policy_id": made.pk})
    change_requests.ask(change=change, by=Actor("maria"))
    assert people["jonas"].get(f"{STORE}change-requests/{open_request().pk}/").status_code == 200
    answer = decide(people["jonas"], "approve")
    assert answer.status_code == 409
    assert "does not know this kind of change" in answer.content.decode()


def test_nobody_approves_what_their_own_key_asked_for(octo, people):
    policy(octo)
    key = api_keys.create_management(organization=octo, name="deploy", by=Actor("maria"))
    body = {"owner": "octo-org", "policyName": "ci", "allowed_endpoints": None, "egress_policy": "audit"}
    ask("POST", "/v1/github/octo-org/actions/policies/ci", {"Authorization": f"Bearer {key}"}, body)
    assert open_request().requested_by == "deploy"
    page = people["maria"].get(f"{STORE}change-requests/{open_request().pk}/").content.decode()
    assert "You cannot approve a request made with deploy, a management key that you created." in page
    assert 'value="approve"' not in page
    refused = decide(people["maria"], "approve")
    assert refused.status_code == 409
    assert "a management key that you created" in refused.content.decode()
    page = people["jonas"].get(f"{STORE}change-requests/{open_request().pk}/").content.decode()
    assert "Requested with the management key deploy, made by maria." in page
    decide(people["jonas"], "approve")
    assert Policy.objects.get().egress_policy == "audit"


def test_a_key_of_the_same_name_made_anew_does_not_free_who_made_the_first(octo, people):
    policy(octo)
    key = api_keys.create_management(organization=octo, name="deploy", by=Actor("maria"))
    body = {"owner": "octo-org", "policyName": "ci", "allowed_endpoints": None, "egress_policy": "audit"}
    ask("POST", "/v1/github/octo-org/actions/policies/ci", {"Authorization": f"Bearer {key}"}, body)
    api_keys.revoke(key=ApiKey.objects.get(name="deploy"), by=Actor("jonas"))
    api_keys.create_management(organization=octo, name="deploy", by=Actor("jonas"))
    for name in people:
        assert decide(people[name], "approve").status_code == 409


def test_four_eyes_for_keys_let_people_change_things_and_what_keys_ask_for_waits(octo, people):
    first, second = _client(octo, "first", Role.OWNER), _client(octo, "second", Role.OWNER)
    address = "/organizations/octo-org/settings/four-eyes/"
    first.post(address, {"on": "keys"})
    assert not FourEyes.objects.get().keys_alone
    decide(second, "approve")
    assert FourEyes.objects.get().keys_alone
    assert "Requests by management keys wait" in first.get(address).content.decode()
    made = policy(octo)
    edit(people["maria"], made, f"{BLOCK}# x\n")
    assert Policy.objects.get().version == 2
    headers = {"Authorization": f"Bearer {factories.management_key(octo)}"}
    answer = ask("DELETE", "/v1/github/octo-org/actions/policies/ci", headers)
    assert (answer.status, answer.json()["error"]) == (409, "needs_approval")
    decide(people["maria"], "approve")
    assert not Policy.objects.exists()
    first.post(address, {"on": "1"})
    assert not FourEyes.objects.get().keys_alone
    kinds = HistoryEvent.objects.filter(kind__startswith="four_eyes").order_by("pk").values_list("kind", "reason")
    keys = ("four_eyes_on", "For what management keys ask for, not for people.")
    assert list(kinds) == [("four_eyes_on", ""), keys, ("four_eyes_on", "")]


def test_keys_alone_can_be_switched_on_and_off_at_once_where_nobody_elses_changes_wait():
    organization = factories.organization("octo-org")
    owner, address = _client(organization, "first", Role.OWNER), "/organizations/octo-org/settings/four-eyes/"
    factories.member(organization, Role.SECURITY_ADMIN, "second")
    owner.post(address, {"on": "keys"})
    assert FourEyes.objects.get().keys_alone
    owner.post(address, {"on": "0"})
    assert not FourEyes.objects.exists()
    assert not ChangeRequest.objects.exists()


def _forbidden(octo, listing):
    """A never-allow host, and policies that list it."""
    for number in range(listing):
        factories.policy(octo, f"lists-{number:02}", "egress-policy: audit\nallowed-endpoints: evil.example:443\n")
    excepting = policy(octo)
    ends = timezone.now() + timedelta(days=1)
    exceptions.AddException(policy=excepting, endpoint="evil.example:8443", reason="x", expires_at=ends).apply(
        by=SYSTEM
    )
    staged.StageVersion(
        policy=excepting,
        text="egress-policy: audit\nallowed-endpoints: evil.example:443\n",
        live_version=1,
        expected_event=None,
    ).apply(by=SYSTEM)
    return never_allow.add(organization=octo, host="evil.example", reason="It leaks", by=SYSTEM)[0]


@pytest.fixture
def few_in_full(monkeypatch):
    """Pages show four policies in full, and the names of the others."""
    monkeypatch.setattr(effects, "IN_FULL", 4)


@pytest.mark.parametrize("listing", [2, 6])
def test_who_approves_that_a_host_may_be_allowed_again_sees_all_that_changes_with_it(octo, few_in_full, listing):
    first, second = _client(octo, "first", Role.OWNER), _client(octo, "second", Role.OWNER)
    entry = _forbidden(octo, listing)
    agreed = {"confirm": "1", "agreed": ",".join(str(pk) for pk in Policy.objects.values_list("pk", flat=True))}
    first.post(f"/organizations/octo-org/settings/never-allow-hosts/{entry.pk}/remove/", agreed)
    page = second.get(f"{STORE}change-requests/{open_request().pk}/").content.decode()
    names = [f"lists-{number:02}" for number in range(listing)]
    assert [name for name in names if name in page] == names
    assert "<code>evil.example:8443</code>" in page
    assert "<h3>Staged version</h3>" in page
    decide(second, "approve")
    assert ChangeRequest.objects.get().status == "approved"
    assert Policy.objects.filter(version=3).count() == listing
    assert Policy.objects.get(name="ci").open_exceptions


@pytest.mark.parametrize("what", ["first", "last", "exception"])
def test_what_came_to_change_after_it_was_shown_is_not_approved(octo, few_in_full, what):
    first, second = _client(octo, "first", Role.OWNER), _client(octo, "second", Role.OWNER)
    entry = _forbidden(octo, 6)
    agreed = {"confirm": "1", "agreed": ",".join(str(pk) for pk in Policy.objects.values_list("pk", flat=True))}
    first.post(f"/organizations/octo-org/settings/never-allow-hosts/{entry.pk}/remove/", agreed)
    if what == "exception":
        exceptions.end(exception=PolicyException.objects.get(), by=SYSTEM)
    else:
        changed = Policy.objects.get(name="lists-00" if what == "first" else "lists-05")
        values = {"name": changed.name, "description": "", "text": AUDIT, "expected_version": changed.version}
        policies.UpdatePolicy(policy=changed, **values).apply(by=SYSTEM)
    answer = decide(second, "approve")
    assert answer.status_code == 409
    assert "no longer what was shown" in answer.content.decode()
    assert NeverAllowHost.objects.exists()


@pytest.mark.parametrize("ways", ["delete", "detach"])
def test_what_is_approved_is_what_was_shown(octo, people, ways):
    made = policy(octo, scopes=[REPOSITORY])
    people["maria"].post(f"{STORE}{made.pk}/{ways}/", {"name": "ci"})
    attachments.ModifyAttachments(policy=made, add=[Scope.from_key(ORGANIZATION)]).apply(by=SYSTEM)
    answer = decide(people["jonas"], "approve")
    assert answer.status_code == 409
    assert "no longer what was shown" in answer.content.decode()
    assert Attachment.objects.filter(policy=made).count() == 2


def shown_digest(page):
    """The digest that the page's form sends, and whether it takes a tick to send it."""
    [tag] = re.findall(r'<input[^>]*name="digest"[^>]*>', page)
    return re.search(r'value="(\w{64})"', tag)[1], "checkbox" in tag


def review(client, waiting):
    page = client.get(f"{STORE}change-requests/{waiting.pk}/").content.decode()
    return page, *shown_digest(page)


def approve(client, waiting, digest):
    return client.post(f"{STORE}change-requests/{waiting.pk}/", {"decision": "approve", "digest": digest})


def except_(made, endpoint="evil.example:443", by=SYSTEM):
    ends = timezone.now() + timedelta(days=1)
    return exceptions.AddException(policy=made, endpoint=endpoint, reason="For a test", expires_at=ends).apply(by=by)


def test_an_approver_sees_the_exceptions_of_a_policy_that_is_to_block(octo, people):
    made = policy(octo, AUDIT, scopes=[REPOSITORY])
    ends = f"{timezone.now() + timedelta(days=1):%Y-%m-%dT%H:%M}"
    values = {"endpoint": "evil.example:443", "reason": "For a test", "expires_at": ends}
    people["maria"].post(f"{STORE}{made.pk}/exceptions/", values)
    assert not ChangeRequest.objects.exists()
    edit(people["maria"], made, BLOCK)
    page, digest, _ = review(people["jonas"], open_request())
    exceptions_shown = page.split("<h3>Open exceptions</h3>")[1].split("</ul>")[0]
    assert "<code>evil.example:443</code>" in exceptions_shown
    assert "maria: For a test" in exceptions_shown
    assert "3 endpoints will be served" in page
    approve(people["jonas"], ChangeRequest.objects.get(), digest)
    assert json.loads(Policy.objects.get().served_reply)["allowed_endpoints"] == [
        "github.com:443",
        "api.github.com:443",
        "evil.example:443",
    ]


CHANGES = {
    "exception": lambda made: except_(made),
    "set": lambda made: _change_set(made.organization, "registry.octo1.org:443\nevil.example:443\n"),
    "never allow": lambda made: never_allow.add(
        organization=made.organization, host="registry.octo1.org", reason="It leaks", by=SYSTEM
    ),
    "scope": lambda made: attachments.ModifyAttachments(policy=made, add=[Scope.from_key(ORGANIZATION)]).apply(
        by=SYSTEM
    ),
    "staged": lambda made: staged.StageVersion(policy=made, text=AUDIT, live_version=1, expected_event=None).apply(
        by=SYSTEM
    ),
}


def _change_set(octo, text, by=SYSTEM):
    found = EndpointSet.objects.get()
    values = {"name": found.name, "description": "", "text": text, "expected_version": found.version}
    endpoint_sets.UpdateEndpointSet(endpoint_set=found, **values).apply(by=by)


WITH_SET = "egress-policy: {}\nallowed-endpoints: github.com:443\nendpoint-sets: npm\n"


@pytest.mark.parametrize("knows_digest", [True, False])
@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_after_it_was_shown_has_to_be_shown_again(octo, people, what, knows_digest):
    factories.endpoint_set(octo, "npm", "registry.octo1.org:443\n")
    made = policy(octo, WITH_SET.format("audit"), scopes=[REPOSITORY])
    edit(people["maria"], made, WITH_SET.format("block"))
    waiting = open_request()
    _, first, is_new = review(people["jonas"], waiting)
    assert not is_new
    CHANGES[what](made)
    refused = approve(people["jonas"], waiting, first if knows_digest else "")
    assert refused.status_code == 409
    page = refused.content.decode()
    assert "Nothing was changed: what this change would serve is no longer what was shown." in page
    now, is_new = shown_digest(page)
    assert is_new
    assert now != first
    assert Policy.objects.get().egress_policy == "audit"
    assert open_request() == waiting
    if what in ("exception", "set"):
        assert "evil.example:443" in page
    # What was requested may still be approved, as it is shown now.
    assert approve(people["jonas"], waiting, now).status_code == 302
    assert Policy.objects.get().egress_policy == "block"
    assert ChangeRequest.objects.get().digest == now


def test_a_digest_is_good_for_its_own_request_alone(octo, people):
    made, other = policy(octo), factories.policy(octo, "other", AUDIT)
    edit(people["maria"], other, BLOCK)
    _, foreign, _ = review(people["jonas"], open_request())
    change_requests.decline(request=open_request(), by=Actor("jonas"))
    edit(people["maria"], made, AUDIT)
    waiting = open_request()
    _, first, _ = review(people["jonas"], waiting)
    for digest in (foreign, "0" * 64, first.upper(), "x", "\0"):
        assert approve(people["jonas"], waiting, digest).status_code == 409
    assert Policy.objects.get(name="ci").version == 1
    assert approve(people["jonas"], waiting, first).status_code == 302
    assert approve(people["jonas"], waiting, first).status_code == 409
    assert Policy.objects.get(name="ci").version == 2


def test_a_change_that_was_undone_again_is_what_was_shown(octo, people):
    made = policy(octo, AUDIT)
    edit(people["maria"], made, BLOCK)
    waiting = open_request()
    _, first, _ = review(people["jonas"], waiting)
    added = except_(made)
    assert approve(people["jonas"], waiting, first).status_code == 409
    exceptions.end(exception=added, by=SYSTEM)
    assert approve(people["jonas"], waiting, first).status_code == 302


def test_looking_at_a_request_changes_nothing(octo, people):
    made = policy(octo)
    edit(people["maria"], made, AUDIT)
    events = HistoryEvent.objects.count()
    for _ in range(3):
        review(people["jonas"], open_request())
    assert HistoryEvent.objects.count() == events
    made.refresh_from_db()
    assert (made.version, made.text) == (1, BLOCK)


def test_the_approver_of_a_canary_sees_what_is_staged_and_what_it_replaces(octo, people):
    made = policy(octo, BLOCK, scopes=[REPOSITORY])
    text = "egress-policy: audit\nallowed-endpoints: evil.example:443\n"
    version = staged.StageVersion(policy=made, text=text, live_version=1, expected_event=None).apply(by=SYSTEM)
    with pytest.raises(commands.NeedsApproval) as waiting:
        staged.SetCanaries(policy=made, scopes=[Scope.from_key(REPOSITORY)], expected_event=version.event_id).apply(
            by=Actor("maria")
        )
    asked = change_requests.ask(change=waiting.value.change, by=Actor("maria"))
    page, digest, _ = review(people["jonas"], asked)
    flat = " ".join(page.split())
    assert "Staged text, compared with the live version" in flat
    assert "version 1 (block), which is live, for the canary scopes" in flat
    assert '<span class="badge badge-block">Block</span> → <span class="badge badge-audit">Audit</span>' in flat
    assert '<li class="scope-added">+ evil.example:443</li>' in flat
    assert f"+ {REPOSITORY}" in flat
    assert f'name="impact_over" value="{REPOSITORY}"' in flat
    staged.discard(policy=made, expected_event=version.event_id, by=SYSTEM)
    again = staged.StageVersion(policy=made, text=AUDIT, live_version=1, expected_event=None).apply(by=SYSTEM)
    refused = approve(people["jonas"], asked, digest)
    assert refused.status_code == 409
    assert "This change can no longer be made" in refused.content.decode()
    assert not again.canaries.exists()


@pytest.mark.parametrize("what", ["promote", "set", "exception"])
def test_every_kind_of_request_is_bound_to_what_it_serves(octo, people, what):
    factories.endpoint_set(octo, "npm", "registry.octo1.org:443\n")
    made = policy(octo, WITH_SET.format("block"), scopes=[REPOSITORY])
    version = staged.StageVersion(policy=made, text=AUDIT, live_version=1, expected_event=None).apply(by=SYSTEM)
    maria = Actor("maria")
    requests = {
        "promote": lambda: staged.PromoteStaged(policy=made, expected_event=version.event_id).apply(by=maria),
        "exception": lambda: except_(made, "wanted.example:443", by=maria),
        "set": lambda: _change_set(octo, "registry.yarnpkg.com:443", by=maria),
    }
    with pytest.raises(commands.NeedsApproval) as waiting:
        requests[what]()
    asked = change_requests.ask(change=waiting.value.change, by=Actor("maria"))
    _, digest, _ = review(people["jonas"], asked)
    except_(made)
    refused = approve(people["jonas"], asked, digest)
    assert refused.status_code == 409
    page = refused.content.decode()
    assert "evil.example:443" in page
    assert approve(people["jonas"], asked, shown_digest(page)[0]).status_code == 302
    assert ChangeRequest.objects.get().status == "approved"


def test_a_decided_request_shows_what_was_approved(octo, people):
    made = policy(octo, AUDIT)
    edit(people["maria"], made, BLOCK)
    waiting = open_request()
    _, digest, _ = review(people["jonas"], waiting)
    approve(people["jonas"], waiting, digest)
    except_(made)
    page = people["jonas"].get(f"{STORE}change-requests/{waiting.pk}/").content.decode()
    assert "2 endpoints will be served" in page
    assert "evil.example" not in page
    assert 'name="digest"' not in page


def test_an_old_request_stays_as_strict_when_four_eyes_are_off(octo, people):
    made = policy(octo, scopes=[REPOSITORY])
    people["maria"].post(f"{STORE}{made.pk}/delete/", {"name": "ci"})
    commands.SwitchOffFourEyes(organization=octo).apply(by=SYSTEM)
    attachments.ModifyAttachments(policy=made, remove=[Scope.from_key(REPOSITORY)]).apply(by=SYSTEM)
    assert decide(people["jonas"], "approve").status_code == 409
    assert Policy.objects.get() == made
