"""Never-allow hosts: left out of what runners get, refused at save, and reviewed before they change a policy."""

import json
import re
from datetime import timedelta
from html import unescape

import pytest
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import Actor, Role
from policystore.audit_log.models import HistoryEvent
from policystore.policies import endpoint_sets, never_allow
from policystore.policies.approvals import commands
from policystore.policies.approvals import requests as change_requests
from policystore.policies.compiler import PoliciesWouldChange
from policystore.policies.core import actions as policies
from policystore.policies.core import queries
from policystore.policies.errors import InvalidDocument, InvalidNeverAllow, NeverAllowGone
from policystore.policies.exceptions import AddException
from policystore.policies.models import NeverAllowHost, Policy
from policystore.policies.staging import StageVersion
from tests import factories
from tests.policies.test_pages import browser

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
TEXT = "egress-policy: {mode}\nallowed-endpoints: >\n  github.com\n  {endpoint}\n"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def owner(organization):
    return browser(organization, Role.OWNER, "olga")


def add(organization, host="evil.example", reason="Stole keys", **more):
    return never_allow.add(organization=organization, host=host, reason=reason, by=ANN, **more)


def listing(organization, name, endpoint="evil.example", mode="block"):
    return factories.policy(organization, name, TEXT.format(mode=mode, endpoint=endpoint))


def served(policy):
    return json.loads(Policy.objects.get(pk=policy.pk).reply)["allowed_endpoints"]


def address(name="list", *arguments):
    return reverse(f"never-allow:{name}", args=["octo-org", *arguments])


def fields(page):
    found = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    return {name: unescape(value) for name, value in found.items() if name != "csrfmiddlewaretoken"}


@pytest.mark.parametrize("mode", ["block", "audit"])
def test_policies_that_list_it_lose_it_with_a_version_and_a_history_event(organization, mode):
    policy, other = listing(organization, "ci", mode=mode), factories.policy(organization, "other")
    broad = listing(organization, "broad", "*.example", mode=mode)
    _, effects = add(organization)
    assert served(policy) == served(broad) == ["github.com:443"]
    assert [(effect.name, effect.removed) for effect in effects] == [
        ("ci", ("evil.example:443",)),
        ("broad", ("*.example:443",)),
    ]
    first, *events = HistoryEvent.objects.filter(actor="ann").order_by("pk")
    assert (first.kind, first.subject_type, first.subject_name) == ("never_allow_added", "organization", "octo-org")
    assert (first.details, first.reason) == ({"host": "evil.example"}, "Stole keys")
    assert [(event.kind, event.subject_id, event.version, event.reason) for event in events] == [
        ("updated", policy.pk, 2, "Never-allow host evil.example was added."),
        ("updated", broad.pk, 2, "Never-allow host evil.example was added."),
    ]
    assert json.loads(events[0].reply_after)["allowed_endpoints"] == ["github.com:443"]
    assert Policy.objects.get(pk=other.pk).version == 1
    assert Policy.objects.get(pk=policy.pk).text == policy.text


def test_sets_lose_it_too_and_it_is_found_by_a_search_all_the_same(organization):
    factories.endpoint_set(organization, "old", "a.pastes.example\nb.example\n")
    policy = factories.policy(organization, "ci", "egress-policy: block\nendpoint-sets: old\n")
    add(organization, "*.pastes.example")
    assert served(policy) == ["b.example:443"]
    assert Policy.objects.get(pk=policy.pk).endpoint_count == 1
    assert len(queries.list_page(organization, search="a.pastes.example").rows) == 1


def test_another_organization_decides_for_itself(organization):
    theirs = listing(factories.organization("other"), "ci")
    add(organization)
    assert served(theirs) == ["github.com:443", "evil.example:443"]


def test_a_policy_that_lists_it_cannot_be_saved_any_more(organization):
    add(organization)
    with pytest.raises(InvalidDocument) as refusal:
        listing(organization, "ci", mode="audit")
    (problem,) = refusal.value.problems
    assert (problem.line, problem.code) == (4, "never-allowed")
    assert "Stole keys" in problem.message
    policy = factories.policy(organization, "other")
    with pytest.raises(InvalidDocument):
        policies.UpdatePolicy(
            policy=policy,
            name="other",
            description="",
            text=TEXT.format(mode="block", endpoint="*.example"),
            expected_version=1,
        ).apply(by=ANN)
    with pytest.raises(InvalidDocument):
        factories.endpoint_set(organization, "old", "evil.example\n")


def test_a_set_saved_with_other_endpoints_stays_without_it(organization):
    old = factories.endpoint_set(organization, "old", "evil.example\n")
    policy = factories.policy(organization, "ci", "egress-policy: block\nendpoint-sets: old\n")
    add(organization)
    with pytest.raises(InvalidDocument):
        endpoint_sets.UpdateEndpointSet(
            endpoint_set=old, name="old", description="", text="evil.example\nb.com\n", expected_version=1
        ).apply(by=ANN)
    assert served(policy) == []


def test_off_the_list_policies_get_back_what_they_list(organization):
    policy = listing(organization, "ci")
    entry, _ = add(organization)
    effects = never_allow.RemoveNeverAllow(entry=entry).apply(by=ANN)
    assert served(policy) == ["github.com:443", "evil.example:443"]
    assert [(effect.name, effect.added) for effect in effects] == [("ci", ("evil.example:443",))]
    assert [event.kind for event in HistoryEvent.objects.order_by("-pk")[:2]] == ["updated", "never_allow_removed"]
    with pytest.raises(NeverAllowGone):
        never_allow.RemoveNeverAllow(entry=entry).apply(by=ANN)


def test_what_another_entry_refuses_too_stays_out(organization):
    policy = listing(organization, "ci", "a.evil.example")
    entry, _ = add(organization, "a.evil.example")
    add(organization, "*.evil.example")
    assert never_allow.RemoveNeverAllow(entry=entry, agreed=[]).apply(by=ANN) == []
    assert served(policy) == ["github.com:443"]


@pytest.mark.parametrize(
    ("host", "reason", "message"),
    [
        ("evil", "x", "Enter a host such as"),
        ("evil.example:443", "x", "without a port"),
        ("evil.example", " ", "Enter a reason"),
        ("evil.example", "x" * 201, "at most 200"),
        ("KNOWN.example", "x", r"is already a never-allow host: Known for long"),
    ],
)
def test_what_cannot_be_on_the_list_is_refused(organization, host, reason, message):
    add(organization, "known.example", "Known for long")
    with pytest.raises(InvalidNeverAllow, match=message):
        add(organization, host, reason)
    assert NeverAllowHost.objects.count() == 1


def test_policies_beyond_those_agreed_to_are_not_changed(organization):
    seen = listing(organization, "seen")
    late = listing(organization, "late")
    with pytest.raises(PoliciesWouldChange):
        add(organization, agreed=[seen.pk])
    assert (served(late), NeverAllowHost.objects.exists()) == (["github.com:443", "evil.example:443"], False)


def test_with_four_eyes_adding_is_at_once_and_removing_waits(organization):
    policy = listing(organization, "ci")
    factories.four_eyes_on(organization)
    entry, _ = add(organization)
    assert served(policy) == ["github.com:443"]
    with pytest.raises(commands.NeedsApproval) as waiting:
        never_allow.RemoveNeverAllow(entry=entry).apply(by=ANN)
    request = change_requests.ask(change=waiting.value.change, by=ANN)
    assert request.payload["host"] == "evil.example"
    assert [policy["name"] for policy in request.shown["policies"]] == ["ci"]
    assert NeverAllowHost.objects.exists()
    change_requests.approve(request=request, by=Actor("bob"))
    assert served(policy) == ["github.com:443", "evil.example:443"]


def test_the_page_shows_which_policies_lose_what_before_anything_changes(organization, owner):
    policy = listing(organization, "ci", "*.example")
    review = owner.post(address(), {"host": "Evil.example", "reason": "Stole keys"})
    page = review.content.decode()
    assert "1 policy loses endpoints" in page
    assert ">ci</a>" in page
    assert "\u2212 *.example:443" in page
    assert not NeverAllowHost.objects.exists()
    saved = owner.post(address(), {**fields(page), "confirm": "1"}, follow=True).content.decode()
    assert "No policy lets evil.example through from now on. 1 policy has a new version without it." in unescape(saved)
    assert served(policy) == ["github.com:443"]


def test_what_no_policy_lists_is_added_and_removed_at_once(organization, owner):
    listing(organization, "ci")
    owner.post(address(), {"host": "*.pastes.example", "reason": "Anybody can write there"})
    page = owner.get(address()).content.decode()
    assert "<code>*.pastes.example</code>" in page
    assert "olga" in page
    owner.post(address("remove", NeverAllowHost.objects.get().pk))
    assert not NeverAllowHost.objects.exists()


def test_a_host_is_added_in_as_many_queries_for_many_exceptions_and_staged_versions_as_for_one(
    organization, django_assert_max_num_queries
):
    def excepted_and_staged(name):
        policy = listing(organization, name, "other.example")
        until = timezone.now() + timedelta(hours=1)
        AddException(policy=policy, endpoint="extra.example:443", reason="x", expires_at=until).apply(by=ANN)
        StageVersion(policy=policy, text=f"{policy.text}\n", live_version=1, expected_event=None).apply(by=ANN)

    excepted_and_staged("first")
    with django_assert_max_num_queries(60) as one:
        add(organization)
    for number in range(4):
        excepted_and_staged(f"more-{number}")
    with django_assert_max_num_queries(len(one.captured_queries)):
        add(organization, "evil-too.example")


def test_removing_is_reviewed_too(organization, owner):
    policy = listing(organization, "ci")
    entry, _ = add(organization)
    page = owner.post(address("remove", entry.pk)).content.decode()
    assert "1 policy gets endpoints back" in page
    assert NeverAllowHost.objects.exists()
    owner.post(address("remove", entry.pk), {**fields(page), "confirm": "1"})
    assert served(policy) == ["github.com:443", "evil.example:443"]


def test_a_confirmed_change_that_became_another_one_is_reviewed_again(organization, owner):
    listing(organization, "ci")
    page = owner.post(address(), {"host": "evil.example", "reason": "x"}).content.decode()
    listing(organization, "late")
    again = owner.post(address(), {**fields(page), "confirm": "1"})
    assert again.status_code == 409
    assert "2 policies lose endpoints" in again.content.decode()


def test_what_is_refused_comes_back_with_the_reason(owner):
    answer = owner.post(address(), {"host": "https://evil.example", "reason": "x"})
    assert answer.status_code == 422
    assert "Enter a host such as evil.example" in answer.content.decode()


@pytest.mark.parametrize("confirm", [{}, {"confirm": "1"}])
@pytest.mark.parametrize(("field", "values"), [("host", {"host": "evil"}), ("reason", {"reason": " "})])
def test_an_error_stands_at_its_field(owner, field, values, confirm):
    answer = owner.post(address(), {"host": "evil.example", "reason": "x", **values, **confirm})
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]


def test_what_the_agent_lets_through_anyway_is_told(owner):
    page = owner.post(address(), {"host": "codeload.github.com", "reason": "x"}, follow=True).content.decode()
    assert page.count("The agent always allows codeload.github.com:443, whatever a policy says.") == 2


def test_the_history_tells_of_it(organization, owner):
    add(organization)
    page = owner.get(reverse("policies:organization_history", args=["octo-org"])).content.decode()
    assert "Never-Allow Host Added" in page
    assert "<code>evil.example</code>" in page
    assert "Stole keys" in page


def test_a_security_admin_reads_the_list_and_cannot_change_it(organization):
    add(organization)
    admin = browser(organization)
    page = admin.get(address()).content.decode()
    assert "evil.example" in page
    assert "Remove" not in page
    assert admin.post(address(), {"host": "b.example", "reason": "x"}).status_code == 403
