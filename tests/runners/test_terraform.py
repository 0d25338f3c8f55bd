"""The Terraform provider's runs: each ends without an error, and a second plan is empty."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from policystore.accounts.models import SYSTEM, Actor, Role
from policystore.audit_log.models import HistoryEvent
from policystore.policies.approvals import requests as change_requests
from policystore.policies.as_code import management_api
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import Attachment, ChangeRequest, PendingDetach, Policy
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.runners.asking import ask
from tests.runners.terraform import ApplyError, Terraform, attachment, policy

pytestmark = pytest.mark.django_db

SPELLINGS = ["octo-org", "Octo-Org", "OCTO-ORG"]
REPOSITORIES = [("Zebra", ["z.yml", "A.yml"]), ("alpha", None), ("Zebra", ["b.yml", ".github/workflows/c.yml"])]
WORKFLOW = "workflow:octo-org/hello/ci.yml"


@pytest.fixture
def octo():
    return factories.organization("octo-org")


@pytest.fixture
def terraform(octo):
    return Terraform(factories.management_key(octo))


def scopes_of(name):
    return set(Attachment.objects.filter(policy__name=name).values_list("scope_key", flat=True))


def kinds_of(name):
    return list(HistoryEvent.objects.filter(subject_name=name).order_by("pk").values_list("kind", flat=True))


@pytest.mark.parametrize("owner", SPELLINGS)
@pytest.mark.parametrize("name", ["ci", "CI"])
def test_whatever_the_case_of_the_owner_each_step_succeeds_and_a_second_plan_is_empty(octo, terraform, owner, name):
    factories.policy(octo, "ci")
    config = {
        "p": policy(owner, name, endpoints=["GitHub.com", "*.octo1.org:443", "GitHub.com"], disable_sudo=True),
        "a": attachment(owner, name, repositories=REPOSITORIES, clusters=["Z", "a"]),
    }
    terraform.apply(config)
    assert terraform.plan(config) == {}
    config["p"] = policy(
        owner, name, egress_policy="audit", endpoints=[], lockdown={"enabled": True, "reverse_shell": True}
    )
    config["a"] = attachment(owner, name, organization=True, clusters=["a"])
    terraform.apply(config)
    assert terraform.plan(config) == {}
    assert scopes_of("ci") == {"organization:octo-org", "cluster:octo-org/a"}
    config["a"] = attachment(owner, name, repositories=[*REPOSITORIES[:0:-1], ("alpha", None)])
    terraform.apply(config)
    assert terraform.plan(config) == {}
    imported = Terraform(terraform.key)
    imported.import_resource("p", "policy", owner, name)
    imported.import_resource("a", "attachment", owner, name)
    assert imported.plan(config) == {}
    terraform.apply({})
    assert terraform.state == {}
    assert not Policy.objects.exists()


def test_the_reply_to_each_request_spells_the_owner_as_the_request_does(terraform):
    headers = {"Authorization": f"Bearer {terraform.key}"}
    for spelling in SPELLINGS:
        path = f"/v1/github/{spelling}/actions/policies/ci"
        body = {"owner": spelling, "policyName": "ci", "egress_policy": "audit"}
        org = {"org": {"name": spelling, "apply_to_org": True}}
        for answer in (ask("POST", path, headers, body), ask("POST", f"{path}/attach", headers, org)):
            assert (answer.status, answer.json()["owner"]) == (200, spelling)
        read = ask("GET", path, headers).json()
        assert (read["owner"], read["attachments"]["org"]["name"]) == (spelling, spelling)
        assert ask("DELETE", f"{path}/attach", headers).json()["owner"] == spelling
    answer = ask("POST", path, headers, {**body, "owner": "other-org"})
    assert (answer.status, answer.json()["error"]) == (422, "invalid_body")
    assert "owner is not “octo-org”" in answer.json()["message"]


def test_what_a_person_attached_besides_shows_as_a_difference_and_is_taken_back(terraform):
    config = {"p": policy("Octo-Org", "ci"), "a": attachment("Octo-Org", "ci", repositories=[("Hello", None)])}
    terraform.apply(config)
    made = Policy.objects.get()
    attachments.ModifyAttachments(policy=made, add=[Scope.for_cluster("octo-org", "dev")]).apply(by=Actor("ann"))
    assert terraform.plan(config) == {"a": "update"}
    terraform.apply(config)
    assert terraform.plan(config) == {}
    assert scopes_of("ci") == {"repository:octo-org/hello"}


def test_attaching_to_a_scope_that_another_policy_holds_replaces_it_with_an_entry_in_both_histories(octo, terraform):
    before = factories.policy(octo, "before")
    attachments.ModifyAttachments(policy=before, add=[Scope.from_key(WORKFLOW)]).apply(by=SYSTEM)
    config = {
        "p": policy("octo-org", "ci"),
        "a": attachment("octo-org", "ci", repositories=[("hello", ["ci.yml"])]),
    }
    terraform.apply(config)
    assert terraform.plan(config) == {}
    assert (scopes_of("before"), scopes_of("ci")) == (set(), {WORKFLOW})
    events = HistoryEvent.objects.filter(actor="terraform").order_by("pk").values_list("subject_name", "kind", "reason")
    assert list(events)[-2:] == [
        ("before", "detached", "Replaced by ci."),
        ("ci", "attached", "Replaced before."),
    ]


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_two_policies_swap_their_scopes(terraform, names):
    """The two updates of a swap run side by side: here one wholly before the other, in either order."""
    one, other = [("hello", ["ci.yml"])], [("hello", None)]
    config = {f"p{name}": policy("octo-org", name) for name in "ab"}
    config |= {"aa": attachment("octo-org", "a", repositories=one)}
    config |= {"ab": attachment("octo-org", "b", repositories=other)}
    terraform.apply(config)
    swapped = {f"p{name}": config[f"p{name}"] for name in "ab"}
    wanted = {"a": attachment("octo-org", "a", repositories=other), "b": attachment("octo-org", "b", repositories=one)}
    swapped |= {f"a{name}": wanted[name] for name in names}
    terraform.apply(swapped)
    assert terraform.plan(swapped) == {}
    assert (scopes_of("a"), scopes_of("b")) == ({"repository:octo-org/hello"}, {WORKFLOW})


@pytest.mark.parametrize(
    ("endpoint", "what", "right"),
    [
        ("github.com:443 ", "“github.com:443 ” has a trailing space", "“github.com:443”"),
        (" github.com:443", "“ github.com:443” has a leading space", "“github.com:443”"),
        ("github.com:443\t", "has a trailing tab", "“github.com:443”"),
        ("github.com:443\n", "has a trailing line break", "“github.com:443”"),
        ("github.com:443\u00a0", "has a trailing white space", "“github.com:443”"),
    ],
)
def test_an_endpoint_with_space_around_it_is_refused_by_name(terraform, endpoint, what, right):
    with pytest.raises(ApplyError, match="status: 422") as refused:
        terraform.apply({"p": policy("octo-org", "ci", endpoints=["ghcr.io:443", endpoint])})
    assert what in str(refused.value)
    assert right in str(refused.value)
    assert not Policy.objects.exists()


@pytest.mark.parametrize(
    "planned",
    [
        attachment("octo-org", "ci", repositories=[("hello ", None)]),
        attachment("octo-org", "ci", repositories=[("hello", ["ci.yml "])]),
        attachment("octo-org", "ci", clusters=[" dev"]),
        policy("octo-org", "ci "),
        policy("octo-org", "ci", egress_policy="block "),
    ],
)
def test_a_name_with_space_around_it_is_refused(octo, terraform, planned):
    factories.policy(octo, "ci", "egress-policy: audit\n")
    with pytest.raises(ApplyError, match=r"status: 422.*(leading|trailing) space"):
        terraform.apply({"x": planned})
    assert not Attachment.objects.exists()
    assert Policy.objects.get().version == 1


text = st.text(st.characters(codec="utf-8", max_codepoint=0x2100), max_size=12)
hosts = st.sampled_from(["github.com:443", "GitHub.com", "*.octo1.org:443", "a.octo1.org", "A.octo1.org:8443"])
# Two entries that mean one endpoint, and whatever else somebody may type.
listed = st.lists(hosts | text | st.builds("{}{}".format, hosts, text), max_size=5)
chosen = st.none() | st.fixed_dictionaries({name: st.booleans() for name in ("enabled", "reverse_shell")})


class TestAnything(TestCase):
    @given(endpoints=listed, lockdown=chosen, is_new=st.booleans(), is_off=st.booleans())
    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    def test_what_is_accepted_is_read_back_as_it_was_sent(self, endpoints, lockdown, is_new, is_off):
        octo = factories.organization("octo-org")
        if not is_new:
            factories.policy(
                octo, "ci", "allowed-endpoints: [github.com, 'A.octo1.org'] # ours\negress-policy: audit\n"
            )
        terraform = Terraform(factories.management_key(octo))
        config = {"p": policy("Octo-Org", "Ci", endpoints=endpoints, lockdown=lockdown, disable_telemetry=is_off)}
        refused = ""
        try:
            terraform.apply(config)
        except ApplyError as error:
            refused = str(error)
        assert refused.startswith("status: 422") or terraform.plan(config) == {}, refused


@pytest.fixture
def four_eyes(octo):
    factories.four_eyes_on(octo)
    approver = Client()
    approver.force_login(
        factories.member(octo, Role.SECURITY_ADMIN, "jonas"), backend="policystore.accounts.access.RoleBackend"
    )
    return approver


def approve():
    change_requests.approve(request=ChangeRequest.objects.get(status="open"), by=Actor("jonas"))


def attached(octo, terraform, text=factories.TEXT):
    """A policy on a workflow, as Terraform made it before four eyes were on, and its configuration."""
    mode = "block" if text == factories.TEXT else "audit"
    config = {
        "p": policy("octo-org", "ci", egress_policy=mode),
        "a": attachment("octo-org", "ci", repositories=[("hello", ["ci.yml"])]),
    }
    terraform.apply(config)
    factories.four_eyes_on(octo)
    return config


AUDIT = "egress-policy: audit\n"


@pytest.mark.parametrize("text", [factories.TEXT, AUDIT])
def test_under_four_eyes_a_change_of_scopes_is_one_request_and_the_scopes_keep_their_policy(octo, terraform, text):
    config = attached(octo, terraform, text)
    config["a"] = attachment("octo-org", "ci", organization=True)
    with pytest.raises(ApplyError, match=r"status: 409.*needs_approval"):
        terraform.apply(config)
    assert scopes_of("ci") == {WORKFLOW}
    assert not PendingDetach.objects.exists()
    waiting = ChangeRequest.objects.get()
    assert (waiting.payload["add"], waiting.payload["remove"]) == (["organization:octo-org"], [WORKFLOW])
    # Terraform is run again before anybody has looked: still one request.
    with pytest.raises(ApplyError, match=f"change request {waiting.pk}"):
        terraform.apply(config)
    management_api.detach_due(at=timezone.now() + timedelta(days=1))
    assert ChangeRequest.objects.count() == 1
    approve()
    assert scopes_of("ci") == {"organization:octo-org"}
    assert kinds_of("ci")[-3:] == ["change_requested", "attached", "change_approved"]
    assert terraform.plan(config) == {}


def test_the_spelling_and_order_of_what_was_approved_are_read_back(octo, terraform):
    config = attached(octo, terraform)
    config["a"] = attachment("Octo-Org", "ci", repositories=REPOSITORIES, clusters=["Z", "a"])
    with pytest.raises(ApplyError, match="needs_approval"):
        terraform.apply(config)
    approve()
    # Terraform replaced the attachment, whose owner is spelled otherwise: its own creation has not succeeded yet.
    terraform.apply(config)
    assert terraform.plan(config) == {}
    assert ChangeRequest.objects.count() == 1


def test_between_detach_and_attach_the_key_reads_that_the_policy_is_detached(octo, terraform):
    attached(octo, terraform)
    headers, path = {"Authorization": f"Bearer {terraform.key}"}, "/v1/github/octo-org/actions/policies/ci"
    other = {"Authorization": f"Bearer {factories.management_key(octo, 'other')}"}
    answer = ask("DELETE", f"{path}/attach", headers)
    assert (answer.status, answer.body) == (204, b"")
    assert "attachments" not in ask("GET", path, headers).json()
    assert "attachments" in ask("GET", path, other).json()
    assert scopes_of("ci") == {WORKFLOW}
    # The same scopes again: nothing changes, so nothing waits.
    body = {"org": {"name": "octo-org", "apply_to_org": False, "repos": [{"name": "hello", "workflows": ["ci.yml"]}]}}
    assert ask("POST", f"{path}/attach", headers, body).status == 200
    assert not PendingDetach.objects.exists()
    assert "attachments" in ask("GET", path, headers).json()
    assert not ChangeRequest.objects.exists()


@pytest.mark.parametrize(("text", "waits"), [(factories.TEXT, True), (AUDIT, False)])
def test_a_detach_that_no_attach_follows_is_a_change_of_its_own(octo, terraform, text, waits):
    config = attached(octo, terraform, text)
    del config["a"]
    terraform.apply(config)
    now = timezone.now()
    management_api.detach_due(at=now + timedelta(minutes=9))
    assert not ChangeRequest.objects.exists()
    assert scopes_of("ci") == {WORKFLOW}
    # What a person attaches meanwhile was not meant.
    attachments.ModifyAttachments(policy=Policy.objects.get(), add=[Scope.for_cluster("octo-org", "dev")]).apply(
        by=SYSTEM
    )
    management_api.detach_due(at=now + timedelta(minutes=11))
    assert ChangeRequest.objects.filter(requested_by="terraform").count() == waits
    assert (WORKFLOW in scopes_of("ci")) == waits
    if waits:
        approve()
    assert scopes_of("ci") == {"cluster:octo-org/dev"}
    assert terraform.plan(config) == {}


def test_an_attach_by_another_key_leaves_the_detach_alone(octo, terraform):
    attached(octo, terraform)
    headers = {"Authorization": f"Bearer {terraform.key}"}
    other = {"Authorization": f"Bearer {factories.management_key(octo, 'other')}"}
    path = "/v1/github/octo-org/actions/policies/ci/attach"
    ask("DELETE", path, headers)
    assert ask("POST", path, other, {"clusters": ["dev"]}).status == 409
    assert ChangeRequest.objects.get().payload["remove"] == []
    assert PendingDetach.objects.exists()


def test_destroying_under_four_eyes_is_one_request(octo, terraform):
    attached(octo, terraform)
    with pytest.raises(ApplyError, match="needs_approval"):
        terraform.apply({})
    management_api.detach_due(at=timezone.now() + timedelta(days=1))
    assert ChangeRequest.objects.get().verb == policies.DeletePolicy.verb
    assert scopes_of("ci") == {WORKFLOW}
    approve()
    assert not Policy.objects.exists()


def test_a_policy_is_updated_once_the_change_is_approved(octo, terraform):
    config = attached(octo, terraform)
    config["p"] = policy("octo-org", "ci", endpoints=["github.com:443", "ghcr.io:443"])
    with pytest.raises(ApplyError, match="needs_approval"):
        terraform.apply(config)
    approve()
    assert terraform.plan(config) == {}
