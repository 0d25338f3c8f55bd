"""Every address of the product and who may open it; an address that is not in the table fails."""

import re
from datetime import timedelta

import pytest
from django.db import transaction
from django.templatetags.static import static
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Actor, FormerMember, Membership, User
from policystore.accounts.roles import Role
from policystore.detections.models import Detection, SuppressionRule
from policystore.integrations import outbox as outbox_messages
from policystore.inventory.models import Organization
from policystore.policies import break_glass, exceptions
from policystore.policies import staging as staged
from policystore.policies.approvals import commands
from policystore.policies.approvals import requests as change_requests
from policystore.policies.as_code import apply as as_code
from policystore.policies.as_code.folder import stored_bundle
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import NeverAllowHost
from policystore.policy_language.scopes import Scope
from policystore.runners.models import BlocklistEntry, JobRun
from tests import factories

pytestmark = pytest.mark.django_db

ROLES = ("nobody", "outsider", "auditor", "admin", "owner")
OWN = "organizations/<str:owner>/"
SIGN_IN, NONE, NO = 302, 404, 403

# What a GET answers, by role, in the order of ROLES; a page that only takes POST answers 405 to those who get so far.
READERS = (SIGN_IN, NONE, 200, 200, 200)
EDITORS = (SIGN_IN, NONE, NO, 200, 200)
OWNERS = (SIGN_IN, NONE, NO, NO, 200)
POST_ONLY = (SIGN_IN, 405, 405, 405, 405)
PAGES = {
    "": (SIGN_IN, 200, 302, 302, 302),
    "help/": (SIGN_IN, 200, 302, 302, 302),
    "help/<str:topic>/": (SIGN_IN, 200, 302, 302, 302),
    f"{OWN}help/": READERS,
    f"{OWN}help/<str:topic>/": READERS,
    f"{OWN}policy-store/": READERS,
    f"{OWN}policy-store/new/": EDITORS,
    f"{OWN}policy-store/check/": POST_ONLY,
    f"{OWN}policy-store/history/": READERS,
    f"{OWN}policy-store/history/accounts/": READERS,
    f"{OWN}policy-store/history/export/": READERS,
    f"{OWN}policy-store/which/": READERS,
    f"{OWN}policy-store/change-requests/": READERS,
    f"{OWN}policy-store/change-requests/<int:request_id>/": READERS,
    f"{OWN}policy-store/break-glass/": READERS,
    f"{OWN}policy-store/break-glass/<int:break_glass_id>/end/": POST_ONLY,
    f"{OWN}policy-store/<int:policy_id>/": READERS,
    f"{OWN}policy-store/<int:policy_id>/edit/": EDITORS,
    f"{OWN}policy-store/<int:policy_id>/exceptions/": POST_ONLY,
    f"{OWN}policy-store/<int:policy_id>/exceptions/<int:exception_id>/end/": POST_ONLY,
    f"{OWN}policy-store/<int:policy_id>/staged/": READERS,
    f"{OWN}policy-store/<int:policy_id>/staged/canaries/": POST_ONLY,
    f"{OWN}policy-store/<int:policy_id>/staged/promote/": POST_ONLY,
    f"{OWN}policy-store/<int:policy_id>/staged/discard/": POST_ONLY,
    f"{OWN}policy-store/<int:policy_id>/staged/counts/": READERS,
    f"{OWN}policy-store/<int:policy_id>/attach/": EDITORS,
    f"{OWN}policy-store/<int:policy_id>/detach/": EDITORS,
    f"{OWN}policy-store/<int:policy_id>/delete/": EDITORS,
    f"{OWN}policy-store/<int:policy_id>/enforcers/": READERS,
    f"{OWN}policy-store/<int:policy_id>/managed/": READERS,
    f"{OWN}policy-store/<int:policy_id>/history/": READERS,
    f"{OWN}policy-store/<int:policy_id>/versions/": READERS,
    f"{OWN}policy-store/<int:policy_id>/versions/compare/": READERS,
    f"{OWN}policy-store/<int:policy_id>/versions/<int:number>/": READERS,
    f"{OWN}policy-store/<int:policy_id>/versions/<int:number>/restore/": EDITORS,
    f"{OWN}endpoint-sets/": READERS,
    f"{OWN}endpoint-sets/new/": EDITORS,
    f"{OWN}endpoint-sets/check/": POST_ONLY,
    f"{OWN}endpoint-sets/<int:set_id>/": READERS,
    f"{OWN}endpoint-sets/<int:set_id>/edit/": EDITORS,
    f"{OWN}endpoint-sets/<int:set_id>/delete/": EDITORS,
    f"{OWN}endpoint-sets/<int:set_id>/history/": READERS,
    f"{OWN}impact/draft/": POST_ONLY,
    f"{OWN}impact/<int:policy_id>/attach/": POST_ONLY,
    f"{OWN}impact/<int:policy_id>/detach/": EDITORS,
    f"{OWN}impact/<int:policy_id>/delete/": EDITORS,
    f"{OWN}baseline/": READERS,
    f"{OWN}baseline/repositories/": READERS,
    f"{OWN}baseline/clusters/": READERS,
    f"{OWN}baseline/jobs/": READERS,
    f"{OWN}baseline/view/": READERS,
    f"{OWN}baseline/create-policy/": EDITORS,
    f"{OWN}baseline/export/": READERS,
    f"{OWN}baseline/import/": POST_ONLY,
    f"{OWN}baseline/words/": EDITORS,
    f"{OWN}coverage/": READERS,
    f"{OWN}detections/": READERS,
    f"{OWN}detections/<int:detection_id>/": READERS,
    f"{OWN}detections/status/": POST_ONLY,
    f"{OWN}detections/of-run/<int:run_id>/": READERS,
    f"{OWN}detections/<int:detection_id>/status/": POST_ONLY,
    f"{OWN}detections/suppression-rules/": READERS,
    f"{OWN}detections/suppression-rules/new/": EDITORS,
    f"{OWN}detections/suppression-rules/<int:rule_id>/remove/": POST_ONLY,
    f"{OWN}insights/": READERS,
    f"{OWN}insights/network-events/": READERS,
    f"{OWN}runs/": READERS,
    f"{OWN}search/": READERS,
    f"{OWN}runs/<int:run_id>/": READERS,
    f"{OWN}runs/of-policy/<int:policy_id>/": READERS,
    f"{OWN}settings/harden-runner-installation/": OWNERS,
    f"{OWN}settings/harden-runner-installation/regenerate/": POST_ONLY,
    f"{OWN}settings/inventory/clusters/<int:cluster_id>/unverified/": POST_ONLY,
    f"{OWN}settings/harden-runner-installation/keys/<int:arc_key_id>/clusters/": OWNERS,
    f"{OWN}settings/harden-runner-installation/job-hooks/": OWNERS,
    f"{OWN}settings/harden-runner-installation/job-hooks/<str:name>": OWNERS,
    f"{OWN}settings/harden-runner-installation/github-hosted/": OWNERS,
    f"{OWN}settings/harden-runner-installation/cargowall/": OWNERS,
    f"{OWN}settings/harden-runner-installation/github-firewall/": OWNERS,
    f"{OWN}settings/harden-runner-installation/last-calls/": OWNERS,
    f"{OWN}settings/management-keys/": OWNERS,
    f"{OWN}settings/management-keys/<int:key_id>/revoke/": OWNERS,
    f"{OWN}settings/global-blocklist/": READERS,
    f"{OWN}settings/global-blocklist/<int:entry_id>/remove/": POST_ONLY,
    f"{OWN}settings/never-allow-hosts/": READERS,
    f"{OWN}settings/never-allow-hosts/<int:entry_id>/remove/": POST_ONLY,
    f"{OWN}settings/integrations/": OWNERS,
    f"{OWN}settings/integrations/new/<str:kind>/": OWNERS,
    f"{OWN}settings/integrations/<int:integration_id>/": OWNERS,
    f"{OWN}settings/integrations/<int:integration_id>/edit/": OWNERS,
    f"{OWN}settings/integrations/<int:integration_id>/secret/": POST_ONLY,
    f"{OWN}settings/integrations/<int:integration_id>/enabled/": POST_ONLY,
    f"{OWN}settings/integrations/<int:integration_id>/delete/": OWNERS,
    f"{OWN}settings/integrations/<int:integration_id>/test/": POST_ONLY,
    f"{OWN}settings/integrations/<int:integration_id>/deliveries/<int:message_id>/": OWNERS,
    f"{OWN}settings/integrations/<int:integration_id>/deliveries/<int:message_id>/replay/": POST_ONLY,
    f"{OWN}settings/four-eyes/": OWNERS,
    f"{OWN}settings/inventory/": READERS,
    f"{OWN}settings/members/": OWNERS,
    f"{OWN}settings/members/<int:membership_id>/": POST_ONLY,
    f"{OWN}settings/members/<int:membership_id>/remove/": OWNERS,
    f"{OWN}settings/members/removed/<int:former_id>/add/": POST_ONLY,
}
# Open to everybody: signing in, probes (metrics ask for a token), and the routes of runners and systems, which ask for
# keys of their own.
OPEN = {
    "healthz",
    "readyz",
    "metrics",
    "sign-in/",
    "sign-in/link/<str:secret>/",
    "sign-out/",
    "favicon.ico",
    "admin/login/",
    "auth/github/login/",
    "auth/github/login/callback/",
}
# What a POST answers to those who may not: nobody and outsiders as for a GET, others 403.
POSTS = {
    f"{OWN}policy-store/break-glass/": "admin",
    f"{OWN}policy-store/break-glass/<int:break_glass_id>/end/": "admin",
    f"{OWN}policy-store/new/": "admin",
    f"{OWN}policy-store/check/": "admin",
    f"{OWN}policy-store/<int:policy_id>/edit/": "admin",
    f"{OWN}policy-store/<int:policy_id>/attach/": "admin",
    f"{OWN}policy-store/<int:policy_id>/exceptions/": "admin",
    f"{OWN}policy-store/<int:policy_id>/exceptions/<int:exception_id>/end/": "admin",
    f"{OWN}policy-store/<int:policy_id>/staged/": "admin",
    f"{OWN}policy-store/<int:policy_id>/staged/canaries/": "admin",
    f"{OWN}policy-store/<int:policy_id>/staged/promote/": "admin",
    f"{OWN}policy-store/<int:policy_id>/staged/discard/": "admin",
    f"{OWN}policy-store/<int:policy_id>/detach/": "admin",
    f"{OWN}policy-store/<int:policy_id>/managed/": "admin",
    f"{OWN}policy-store/<int:policy_id>/delete/": "admin",
    f"{OWN}policy-store/<int:policy_id>/versions/<int:number>/restore/": "admin",
    f"{OWN}endpoint-sets/new/": "admin",
    f"{OWN}endpoint-sets/check/": "admin",
    f"{OWN}endpoint-sets/<int:set_id>/edit/": "admin",
    f"{OWN}endpoint-sets/<int:set_id>/delete/": "admin",
    f"{OWN}impact/draft/": "admin",
    f"{OWN}impact/<int:policy_id>/attach/": "admin",
    f"{OWN}baseline/import/": "admin",
    f"{OWN}detections/status/": "admin",
    f"{OWN}detections/<int:detection_id>/status/": "admin",
    f"{OWN}detections/suppression-rules/new/": "admin",
    f"{OWN}detections/suppression-rules/<int:rule_id>/remove/": "admin",
    f"{OWN}settings/harden-runner-installation/regenerate/": "owner",
    f"{OWN}settings/inventory/clusters/<int:cluster_id>/unverified/": "owner",
    f"{OWN}settings/harden-runner-installation/keys/<int:arc_key_id>/clusters/": "owner",
    f"{OWN}settings/management-keys/": "owner",
    f"{OWN}settings/management-keys/<int:key_id>/revoke/": "owner",
    f"{OWN}settings/global-blocklist/": "owner",
    f"{OWN}settings/global-blocklist/<int:entry_id>/remove/": "owner",
    f"{OWN}settings/never-allow-hosts/": "owner",
    f"{OWN}settings/never-allow-hosts/<int:entry_id>/remove/": "owner",
    f"{OWN}settings/integrations/new/<str:kind>/": "owner",
    f"{OWN}settings/integrations/<int:integration_id>/edit/": "owner",
    f"{OWN}settings/integrations/<int:integration_id>/secret/": "owner",
    f"{OWN}settings/integrations/<int:integration_id>/enabled/": "owner",
    f"{OWN}settings/integrations/<int:integration_id>/delete/": "owner",
    f"{OWN}settings/integrations/<int:integration_id>/test/": "owner",
    f"{OWN}settings/integrations/<int:integration_id>/deliveries/<int:message_id>/replay/": "owner",
    f"{OWN}policy-store/change-requests/<int:request_id>/": "admin",
    f"{OWN}settings/four-eyes/": "owner",
    f"{OWN}settings/inventory/": "admin",
    f"{OWN}settings/members/": "owner",
    f"{OWN}settings/members/<int:membership_id>/": "owner",
    f"{OWN}settings/members/<int:membership_id>/remove/": "owner",
    f"{OWN}settings/members/removed/<int:former_id>/add/": "owner",
}


def addresses(resolver=None, prefix=""):
    for entry in (resolver or get_resolver()).url_patterns:
        if isinstance(entry, URLResolver):
            yield from addresses(entry, prefix + str(entry.pattern))
        elif isinstance(entry, URLPattern):
            yield prefix + str(entry.pattern)


def is_route(address):
    return address == "v1" or address.startswith(("v1/", "^v1", "api/"))


@pytest.fixture(scope="module")
def built(django_db_setup, django_db_blocker):
    """octo-org with one of everything, made once: what a test changes in it is rolled back after the test, and all of
    it after the last one. A client and the cookies of each role, and what addresses are filled with."""
    with django_db_blocker.unblock(), transaction.atomic():
        cookies, values = build()
        # A new client loads all middleware again.
        yield {role: Client(raise_request_exception=False) for role in ROLES}, cookies, values
        transaction.set_rollback(True)


@pytest.fixture
def world(built, db):
    """What is built, and a client for each role, signed in."""
    clients, cookies, values = built
    for role, client in clients.items():
        client.cookies.clear()
        client.cookies.load(cookies[role])
    return clients, values


def build():
    organization = factories.organization("octo-org")
    policy = factories.policy(organization)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    as_code.apply(bundle=stored_bundle(organization), by=SYSTEM, source="octo-org/policies")
    staged.StageVersion(policy=policy, text="egress-policy: audit\n", live_version=1, expected_event=None).apply(
        by=SYSTEM
    )
    run = JobRun.objects.create(
        verified_by="key", organization=organization, repository="r", correlation_id="a", first_seen_at=timezone.now()
    )
    entry = BlocklistEntry.objects.create(organization=organization, kind="domain", endpoint="x.example", reason="x")
    NeverAllowHost.objects.create(
        pk=entry.pk, organization=organization, host="y.example", reason="x", added_at=timezone.now(), added_by="ann"
    )
    factories.management_key(organization)
    factories.api_key(organization, kind="arc")
    subject = ("policy", policy.pk, policy.name)
    change = commands.Change(policies.DeletePolicy.verb, organization, subject, {"policy_id": policy.pk})
    waiting = change_requests.ask(change=change, by=Actor("terraform", "api_key"))
    integration = factories.integration(organization)
    message = outbox_messages.send_test(integration=integration, by=SYSTEM)
    people = {
        "outsider": factories.member(factories.organization("other"), Role.OWNER, "outsider"),
        "auditor": factories.member(organization, Role.AUDITOR, "auditor"),
        "admin": factories.member(organization, Role.SECURITY_ADMIN, "admin"),
        "owner": factories.member(organization, Role.OWNER, "owner"),
    }
    # Outsiders have no organization that the home page could lead to.
    Membership.objects.filter(user=people["outsider"]).delete()
    values = {
        "<str:owner>": "octo-org",
        "<int:policy_id>": str(policy.pk),
        "<int:request_id>": str(waiting.pk),
        "<int:set_id>": str(factories.endpoint_set(organization).pk),
        "<int:run_id>": str(run.pk),
        "<int:detection_id>": str(detection(run).pk),
        "<int:number>": "1",
        "<int:rule_id>": str(rule(organization).pk),
        "<int:entry_id>": str(entry.pk),
        "<int:cluster_id>": str(organization.clusters.create(name="prod-k8s").pk),
        "<int:exception_id>": str(exception_of(policy).pk),
        "<int:break_glass_id>": str(break_glass_of(organization).pk),
        "<int:key_id>": str(organization.api_keys.get(kind="management").pk),
        "<int:arc_key_id>": str(organization.api_keys.get(kind="arc").pk),
        "<int:integration_id>": str(integration.pk),
        "<int:message_id>": str(message.pk),
        "<str:kind>": "webhook",
        "<int:membership_id>": str(people["auditor"].memberships.get().pk),
        "<int:former_id>": str(former_of(organization).pk),
        "<str:name>": "install-job-hooks.sh",
        "<str:topic>": "scopes",
    }
    return {role: _signed_in(people.get(role)) for role in ROLES}, values


def detection(run):
    return Detection.objects.create(
        organization=run.organization, job_run=run, digest="a", detection_id="Reverse-Shell", at=timezone.now()
    )


def exception_of(policy):
    expires_at = timezone.now() + timedelta(days=1)
    return exceptions.AddException(policy=policy, endpoint="x.example:443", reason="x", expires_at=expires_at).apply(
        by=SYSTEM
    )


def break_glass_of(organization):
    scope = Scope.for_organization(organization.login)
    return break_glass.start(organization=organization, scope=scope, hours=1, reason="x", by=SYSTEM)


def former_of(organization):
    person = factories.user(f"former-{organization.key}")
    now = timezone.now()
    return FormerMember.objects.create(
        organization=organization, user=person, role=Role.AUDITOR, removed_by="ann", ended_at=now
    )


def rule(organization):
    return SuppressionRule.objects.create(
        organization=organization, process="x", reason="known", created_at=timezone.now(), created_by="ann"
    )


def _signed_in(person):
    client = Client()
    if person is not None:
        client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return {name: cookie.value for name, cookie in client.cookies.items()}


def fill(address, values):
    return "/" + re.sub(r"<\w+:\w+>", lambda found: values[found.group()], address)


def kept_by_no_cache(response):
    return {"private", "no-store"} <= {word.strip() for word in response.headers["Cache-Control"].split(",")}


def test_every_address_is_in_the_table():
    found = {address for address in addresses() if not is_route(address)}
    listed = {*PAGES, *OPEN}
    unlisted = {
        address
        for address in found - listed
        if not address.startswith("admin/")
        and not address.startswith("auth/account-")
        and "socialaccount" not in address
    }
    assert unlisted == set()
    assert listed - found == set()


@pytest.mark.parametrize("address", PAGES, ids=lambda address: address or "home")
def test_each_role_gets_what_the_table_says(world, address):
    clients, values = world
    answers = [clients[role].get(fill(address, values)) for role in ROLES]
    assert tuple(answer.status_code for answer in answers) == PAGES[address]
    assert all(kept_by_no_cache(answer) for answer in answers)


@pytest.mark.parametrize("address", POSTS)
def test_a_change_is_refused_to_those_who_may_not(world, address):
    clients, values = world
    allowed = ROLES[ROLES.index(POSTS[address]) :]
    for role in ROLES:
        response = clients[role].post(fill(address, values), {})
        assert kept_by_no_cache(response), role
        answer = response.status_code
        if role in allowed:
            # What the first of them removed is gone for the next.
            assert answer in (200, 302, 400, 409, 422) or (answer == NONE and role != allowed[0]), role
        else:
            assert answer == {"nobody": SIGN_IN, "outsider": NONE}.get(role, NO), role


@pytest.mark.parametrize("address", POSTS)
def test_no_form_loses_its_text_when_the_session_has_ended(world, address):
    clients, values = world
    own = {"origin": "http://testserver"}
    kept = clients["nobody"].post(fill(address, values), {"name": "a name", "comment": "a comment"}, headers=own)
    assert kept.status_code == 401
    for text in ("a name", "a comment", f'action="{fill(address, values)}"'):
        assert text in kept.content.decode()


@pytest.mark.parametrize("address", [address for address in PAGES if address.startswith(OWN)])
def test_nothing_of_another_organization_is_there(world, address):
    clients, values = world
    theirs = factories.organization("theirs")
    factories.member(theirs, Role.OWNER, "them")
    for owner in ("theirs", "nowhere"):
        answer = clients["owner"].get(fill(address, {**values, "<str:owner>": owner}))
        assert answer.status_code == (405 if PAGES[address] is POST_ONLY else NONE)


@pytest.mark.parametrize(
    "kind",
    [
        "policy_id",
        "set_id",
        "run_id",
        "request_id",
        "key_id",
        "detection_id",
        "rule_id",
        "break_glass_id",
        "exception_id",
        "membership_id",
        "former_id",
    ],
)
def test_an_id_of_another_organization_is_not_there(world, kind):
    clients, values = world
    theirs = factories.organization("theirs")
    policy = factories.policy(theirs)
    run = JobRun.objects.create(
        verified_by="key", organization=theirs, repository="r", correlation_id="a", first_seen_at=timezone.now()
    )
    factories.management_key(theirs)
    change = commands.Change(
        policies.DeletePolicy.verb, theirs, ("policy", policy.pk, policy.name), {"policy_id": policy.pk}
    )
    other = {
        "request_id": change_requests.ask(change=change, by=SYSTEM).pk,
        "policy_id": policy.pk,
        "set_id": factories.endpoint_set(theirs).pk,
        "run_id": run.pk,
        "key_id": theirs.api_keys.get().pk,
        "detection_id": detection(run).pk,
        "rule_id": rule(theirs).pk,
        "break_glass_id": break_glass_of(theirs).pk,
        "exception_id": exception_of(policy).pk,
        "membership_id": factories.member(theirs, Role.AUDITOR, "theirs").memberships.get().pk,
        "former_id": former_of(theirs).pk,
    }
    changed = {**values, f"<int:{kind}>": str(other[kind])}
    asked = [address for address in PAGES if f"<int:{kind}>" in address]
    assert asked
    for address in asked:
        ask = clients["owner"].post if PAGES[address] is POST_ONLY else clients["owner"].get
        assert ask(fill(address, changed)).status_code == NONE, address


def test_an_id_that_no_database_takes_is_not_there(world):
    clients, values = world
    for address in PAGES:
        ask = clients["owner"].post if PAGES[address] is POST_ONLY else clients["owner"].get
        for place in re.findall(r"<int:\w+_id>", address):
            assert ask(fill(address, {**values, place: str(10**30)})).status_code == NONE, address


def test_no_cache_keeps_signing_in_the_admin_or_the_json_api(world):
    clients, _ = world
    User.objects.filter(username="owner").update(is_staff=True, is_superuser=True)
    opened = [address for address in OPEN if "<" not in address] + ["admin/", "admin/accounts/user/", "nowhere/"]
    opened += ["sign-in/link/x/", "v1", "v1/nowhere", "v1/github/octo-org/actions/policies/workflow-policy"]
    for address in opened:
        assert kept_by_no_cache(clients["owner"].get(f"/{address}")), address
    key = factories.management_key(Organization.objects.get(key="octo-org"), "reader")
    listed = clients["nobody"].get("/v1/github/octo-org/actions/policies", headers={"authorization": f"Bearer {key}"})
    assert kept_by_no_cache(listed)


def test_static_files_stay_cacheable(world):
    clients, _ = world
    response = clients["owner"].get("/static/css/layers.css")
    response.getvalue()
    assert response.headers["Cache-Control"] == "max-age=3600, public"
    response = clients["owner"].get(static("css/layers.css"))
    response.getvalue()
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    # Of another release.
    response = clients["owner"].get("/static/css/layers.css?v=00000000")
    response.getvalue()
    assert response.headers["Cache-Control"] == "max-age=3600, public"


def test_the_admin_is_for_staff_alone(world):
    clients, _ = world
    for address in {address for address in addresses() if address.startswith("admin/") and "<" not in address}:
        if address in OPEN or "(" in address:
            continue
        for role in ROLES:
            assert clients[role].get(f"/{address}").status_code in (302, 403, 405), (address, role)
