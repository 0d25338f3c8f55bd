"""Break glass: starting and ending it, its history and messages, its page and the banner on every page."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Actor, Role
from policystore.audit_log import history
from policystore.audit_log.models import HistoryEvent
from policystore.integrations.models import OutboxMessage
from policystore.policies import break_glass
from policystore.policies.core import attachments
from policystore.policies.errors import ForeignScope, InvalidBreakGlass
from policystore.policies.models import BreakGlass
from policystore.policy_language.scopes import Scope, overlap
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
REPOSITORY = Scope.for_repository("octo-org", "hello-world")
BANNER = "Break glass</a>:</strong> jobs of"
SCOPES = [
    Scope.for_organization("octo-org"),
    REPOSITORY,
    Scope.for_repository("octo-org", "hello"),
    Scope.for_workflow("octo-org", "hello-world", "ci.yml"),
    Scope.for_workflow("octo-org", "hello-world", "other.yml"),
    Scope.for_workflow("octo-org", "hello", "ci.yml"),
    Scope.for_cluster("octo-org", "one"),
    Scope.for_cluster("octo-org", "two"),
]


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def browser(organization, role=Role.SECURITY_ADMIN, username="ann"):
    client = Client()
    client.force_login(
        factories.member(organization, role, username), backend="policystore.accounts.access.RoleBackend"
    )
    return client


def start(organization, scope=REPOSITORY, **values):
    return break_glass.start(
        organization=organization, **{"scope": scope, "hours": 4, "reason": "npm is down", "by": ANN, **values}
    )


def events():
    return list(HistoryEvent.objects.filter(kind__startswith="break_glass").order_by("pk"))


def address(name="break_glass", *arguments):
    return reverse(f"policies:{name}", args=["octo-org", *arguments])


def post(client, **values):
    return client.post(
        address(), {"type": "repository", "name": "hello-world", "hours": "4", "reason": "npm is down", **values}
    )


# Starting and ending


def test_it_starts_with_a_history_event_of_the_organization(organization):
    begun = start(organization)
    assert begun.ends_at - begun.started_at == timedelta(hours=4)
    [event] = events()
    assert (event.subject_type, event.subject_id, event.subject_name) == ("organization", organization.pk, "octo-org")
    assert (event.label, event.actor, event.reason) == ("Break Glass Started", "ann", "npm is down")
    assert (event.scopes_added, event.scopes_removed) == (["repository:octo-org/hello-world"], [])


def test_ending_it_leaves_an_event_with_the_person_and_ending_it_again_leaves_none(organization):
    begun = start(organization)
    for _ in range(2):
        break_glass.end(break_glass=begun, by=Actor("maria"))
    _, event = events()
    assert (event.label, event.actor) == ("Break Glass Ended", "maria")
    assert event.scopes_removed == ["repository:octo-org/hello-world"]
    assert event.details["why"] == "npm is down"
    assert BreakGlass.objects.get().ended_by == "maria"


def test_nothing_is_broken_when_the_event_cannot_be_written(organization, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no history")

    monkeypatch.setattr(history, "record", refuse)
    with pytest.raises(RuntimeError):
        start(organization)
    assert not BreakGlass.objects.exists()


def test_one_that_runs_out_is_told_once_as_ended_by_the_store(organization):
    begun = start(organization, at=timezone.now() - timedelta(hours=5))
    start(organization, Scope.for_repository("octo-org", "other"))
    assert break_glass.record_expired() == 1
    assert break_glass.record_expired() == 0
    event = events()[-1]
    assert (event.label, event.actor, event.actor_kind) == ("Break Glass Ended", SYSTEM.name, "system")
    assert event.reason == "Its time was up."
    begun.refresh_from_db()
    assert begun.ended_at == begun.ends_at
    assert BreakGlass.objects.active().get().scope_key == "repository:octo-org/other"


def test_ending_one_that_had_run_out_is_not_put_down_to_the_person(organization):
    begun = start(organization, at=timezone.now() - timedelta(hours=5))
    break_glass.end(break_glass=begun, by=ANN)
    assert (events()[-1].actor, events()[-1].reason) == (SYSTEM.name, "Its time was up.")


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(hours=5)], ids=["while it lasts", "after it ran out"])
def test_breaking_the_glass_again_ends_the_first_and_starts_anew(organization, ago):
    start(organization, hours=4, at=timezone.now() - ago)
    again = start(organization, hours=8)
    assert BreakGlass.objects.active().get() == again
    assert [event.kind for event in events()] == ["break_glass_started", "break_glass_ended", "break_glass_started"]
    assert BreakGlass.objects.filter(ended_at__isnull=True).count() == 1


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"hours": 0}, "hours"),
        ({"hours": 73}, "hours"),
        ({"hours": -1}, "hours"),
        ({"reason": "  \n "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "a\x07b"}, "reason"),
    ],
)
def test_hours_are_bounded_and_a_reason_is_required(organization, values, field):
    with pytest.raises(InvalidBreakGlass) as refused:
        start(organization, **values)
    assert refused.value.field == field
    assert not events()


def test_the_scope_of_another_organization_is_refused(organization):
    with pytest.raises(ForeignScope):
        start(organization, Scope.for_organization("other"))


def test_integrations_are_told_of_start_and_end(organization):
    factories.integration(organization)
    begun = start(organization)
    break_glass.end(break_glass=begun, by=ANN)
    told = {message.kind: message.payload for message in OutboxMessage.objects.all()}
    assert set(told) == {"break_glass.started", "break_glass.ended"}
    for text in ('"scope": "repository:octo-org/hello-world"', "npm is down", '"ends_at"', '"actor": "ann"'):
        assert text in told["break_glass.started"]


@pytest.mark.parametrize("attached", SCOPES, ids=lambda scope: scope.key)
def test_what_a_policys_page_tells_of_agrees_with_what_jobs_can_be_served(organization, attached):
    policy = factories.policy(organization)
    attachments.ModifyAttachments(policy=policy, add=[attached]).apply(by=ANN)
    begun = {scope.key: start(organization, scope) for scope in SCOPES}
    expected = {scope.key for scope in SCOPES if overlap(attached, scope)}
    assert {found.scope_key for found in break_glass.touching(policy)} == expected
    blocked = {key for key, found in begun.items() if policy in break_glass.policies_in(found.scope)}
    assert blocked == expected


# The page


def test_a_person_breaks_the_glass_and_ends_it_on_the_page(organization):
    ann = browser(organization)
    assert post(ann).status_code == 302
    begun = BreakGlass.objects.get()
    assert (begun.scope_key, begun.started_by, begun.reason) == (
        "repository:octo-org/hello-world",
        "ann",
        "npm is down",
    )
    page = ann.get(address()).content.decode()
    assert "End now" in page
    ann.post(address("end_break_glass", begun.pk))
    page = ann.get(address()).content.decode()
    assert "End now" not in page
    assert "Break glass is not active" in page
    assert "npm is down" in page


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        ("organization", "", "organization:octo-org"),
        ("workflow", "hello-world/ci.yml", "workflow:octo-org/hello-world/ci.yml"),
        ("cluster", "dev-k8s", "cluster:octo-org/dev-k8s"),
    ],
)
def test_every_kind_of_scope_can_be_chosen(organization, kind, name, key):
    post(browser(organization), type=kind, name=name)
    assert BreakGlass.objects.get().scope_key == key


@pytest.mark.parametrize(
    "values",
    [
        {"hours": "0"},
        {"hours": "73"},
        {"hours": "many"},
        {"hours": "9" * 40},
        {"reason": " "},
        {"type": ""},
        {"type": "nonsense"},
        {"name": ""},
        {"name": "a b"},
        {"type": "workflow", "name": "ci.yml"},
        {"name": "\0"},
    ],
    ids=str,
)
def test_nonsense_is_refused_beside_its_field(organization, values):
    answer = post(browser(organization), **values)
    assert answer.status_code == 422
    assert "errorlist" in answer.content.decode()
    assert not BreakGlass.objects.exists()


def test_a_link_brings_the_scope_along(organization):
    page = browser(organization).get(address(), {"scope": "workflow:octo-org/hello-world/ci.yml"}).content.decode()
    assert 'value="hello-world/ci.yml"' in page
    assert 'value="workflow" required checked' in page
    assert browser(organization, username="b").get(address(), {"scope": "nonsense"}).status_code == 200


@pytest.mark.parametrize("name", ["octo-org/ci.yml", "octo-org/octo-org/ci.yml", "octo-org/.github/workflows/ci.yml"])
def test_a_workflow_can_be_chosen_where_the_repository_is_called_as_its_organization_is(organization, name):
    post(browser(organization), type="workflow", name=name)
    assert BreakGlass.objects.get().scope_key == "workflow:octo-org/octo-org/ci.yml"


def test_an_auditor_sees_it_and_may_neither_start_nor_end_it(organization):
    begun = start(organization)
    auditor = browser(organization, Role.AUDITOR, "audrey")
    page = auditor.get(address()).content.decode()
    assert "npm is down" in page
    assert "End now" not in page
    assert post(auditor).status_code == 403
    assert auditor.post(address("end_break_glass", begun.pk)).status_code == 403
    assert BreakGlass.objects.active().count() == 1


def test_every_page_of_the_organization_has_a_banner_while_it_lasts(organization):
    policy = factories.policy(organization)
    start(organization)
    ann = browser(organization)
    pages = [
        address("list"),
        address("view", policy.pk),
        address("edit", policy.pk),
        address("organization_history"),
        reverse("which", args=["octo-org"]),
        reverse("runs:list", args=["octo-org"]),
    ]
    for page in pages:
        html = ann.get(page).content.decode()
        assert BANNER in html, page
        assert "Started by ann: npm is down" in html
        assert "hours, 59\xa0minutes left" in html
        assert address("end_break_glass", BreakGlass.objects.get().pk) in html
    BreakGlass.objects.update(ends_at=timezone.now())
    for page in pages:
        assert BANNER not in ann.get(page).content.decode(), page


def test_the_banner_of_one_organization_is_not_on_anothers_pages(organization):
    start(organization)
    other = factories.organization("other")
    client = browser(other, username="olga")
    assert BANNER not in client.get(reverse("policies:list", args=["other"])).content.decode()
    assert (
        client.post(reverse("policies:end_break_glass", args=["other", BreakGlass.objects.get().pk])).status_code == 404
    )


def test_history_shows_it_and_a_policy_leads_to_it(organization):
    policy = factories.policy(organization)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=ANN)
    break_glass.end(break_glass=start(organization), by=ANN)
    ann = browser(organization)
    page = ann.get(address("organization_history")).content.decode()
    for text in ("Break Glass Started", "Break Glass Ended", "Audit is served here until", "because: npm is down"):
        assert text in page
    html = ann.get(address("view", policy.pk)).content.decode()
    assert "npm is down" in html
    assert address() in html


def test_many_of_them_are_paged_with_a_constant_number_of_queries(organization, django_assert_max_num_queries):
    policy = factories.policy(organization)
    ann = browser(organization)
    counts = []
    for number in (3, 60):
        for _ in range(number):
            start(organization)
        for page in (address(), address("view", policy.pk)):
            with django_assert_max_num_queries(26) as counted:
                assert ann.get(page).status_code == 200
            counts.append(len(counted))
    assert counts[:2] == counts[2:]
    assert "Page 1 of 3" in ann.get(address()).content.decode()
