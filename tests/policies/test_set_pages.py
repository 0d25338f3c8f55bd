"""The pages of endpoint sets through HTTP: written, reviewed with the policies that change, saved."""

import re
from html import unescape

import pytest
from django.urls import reverse

from policystore.accounts.models import Role
from policystore.audit_log.models import HistoryEvent
from policystore.policies import endpoint_sets
from policystore.policies.core import attachments
from policystore.policies.models import EndpointSet, Policy
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.policies.test_pages import ANN, browser

pytestmark = pytest.mark.django_db

TEXT = "# packages\nregistry.octo1.org:443\nregistry.yarnpkg.com:443\n"
POLICY = "egress-policy: block\nallowed-endpoints: github.com\nendpoint-sets: npm\n"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    return browser(organization)


@pytest.fixture
def npm(organization):
    return factories.endpoint_set(organization, "npm", TEXT, description="What npm needs")


def address(name, *arguments):
    return reverse(f"endpoint-sets:{name}", args=["octo-org", *arguments])


def fields(page):
    """What the form of a page would send."""
    found = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    return {name: unescape(value) for name, value in found.items() if name != "csrfmiddlewaretoken"}


def written(endpoint_set, text, **more):
    return {"name": endpoint_set.name, "description": "", "version": endpoint_set.version, "text": text, **more}


def test_a_set_is_created_and_shown_with_the_policies_that_include_it(organization, ann):
    saved = ann.post(address("new"), {"name": "npm", "description": "What npm needs", "text": TEXT})
    npm = EndpointSet.objects.get()
    assert saved["Location"] == address("view", npm.pk)
    page = ann.get(saved["Location"]).content.decode()
    assert "endpoint-sets: npm" in page
    assert "registry.yarnpkg.com:443" in page
    factories.policy(organization, "ci", POLICY)
    page = ann.get(address("view", npm.pk)).content.decode()
    assert "Included by 1 policy" in page
    assert ">ci</a>" in page


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": ""}, "Enter a name for the endpoint set."),
        ({"name": "a b"}, "Start the name with a letter or digit"),
        ({"text": "https://x.com"}, "The set has 1 error."),
        ({"text": "https://x.com"}, "Line 1, column 1"),
        ({"description": "x" * 501}, "501 characters (maximum 500)"),
        ({"name": "taken"}, "already has an endpoint set named “taken”"),
    ],
)
def test_what_cannot_be_saved_comes_back_with_the_reason(organization, ann, values, told):
    factories.endpoint_set(organization, "taken")
    answer = ann.post(address("new"), {"name": "npm", "description": "", "text": TEXT, **values})
    assert answer.status_code == 422
    assert told in answer.content.decode()


def test_a_set_that_no_policy_includes_is_saved_at_once(ann, npm):
    saved = ann.post(address("edit", npm.pk), written(npm, "npmjs.com\r\n"))
    assert saved.status_code == 302
    assert EndpointSet.objects.get().text == "npmjs.com\n"


def test_before_a_set_in_use_is_saved_the_policies_that_change_are_shown(organization, ann, npm):
    policy = factories.policy(organization, "ci", POLICY)
    factories.policy(organization, "other")
    scopes = [Scope.for_organization("octo-org"), Scope.for_repository("octo-org", "a")]
    attachments.ModifyAttachments(policy=policy, add=scopes).apply(by=ANN)
    review = ann.post(address("edit", npm.pk), written(npm, "# new\r\nregistry.octo1.org:443\r\nnpmjs.com\r\n"))
    page = review.content.decode()
    assert review.status_code == 200
    assert EndpointSet.objects.get().version == 1
    assert "Change 1 policy?" in page
    assert "attached to 2 scopes" in page
    assert "1 added" in page
    assert "+ npmjs.com:443" in page
    assert "\u2212 registry.yarnpkg.com:443" in page
    assert ">other</a>" not in page
    saved = ann.post(address("edit", npm.pk), {**fields(page), "confirm": "1"})
    assert saved.status_code == 302
    assert EndpointSet.objects.get().text == "# new\nregistry.octo1.org:443\nnpmjs.com\n"
    assert Policy.objects.get(pk=policy.pk).version == 2
    history = ann.get(reverse("policies:history", args=["octo-org", policy.pk])).content.decode()
    assert "Endpoint set npm changed." in history
    assert "+ npmjs.com:443" in history
    assert "Version 2" in history


def test_back_from_the_review_leads_to_the_editor_with_the_text(organization, ann, npm):
    factories.policy(organization, "ci", POLICY)
    review = ann.post(address("edit", npm.pk), written(npm, "npmjs.com\n")).content.decode()
    page = ann.post(address("edit", npm.pk), {**fields(review), "action": "back"})
    assert page.status_code == 200
    assert "npmjs.com\n</textarea>" in page.content.decode()
    assert EndpointSet.objects.get().version == 1


def test_a_policy_that_began_to_include_the_set_is_reviewed_first(organization, ann, npm):
    factories.policy(organization, "ci", POLICY)
    review = ann.post(address("edit", npm.pk), written(npm, "npmjs.com\n")).content.decode()
    factories.policy(organization, "late", POLICY)
    again = ann.post(address("edit", npm.pk), {**fields(review), "confirm": "1"})
    assert again.status_code == 409
    assert "The change now affects other policies than the ones you reviewed." in again.content.decode()
    saved = ann.post(address("edit", npm.pk), {**fields(again.content.decode()), "confirm": "1"})
    assert saved.status_code == 302
    assert list(Policy.objects.values_list("version", flat=True)) == [2, 2]


def test_a_save_over_somebody_elses_version_shows_both(ann, npm):
    endpoint_sets.UpdateEndpointSet(
        endpoint_set=npm, name="npm", description="", text="theirs.example.com\n", expected_version=1
    ).apply(by=ANN)
    answer = ann.post(address("edit", npm.pk), written(npm, "mine.example.com\n"))
    page = answer.content.decode()
    assert answer.status_code == 409
    assert "ann saved version 2" in page
    assert "theirs" in page
    assert "mine.example.com\n</textarea>" in page
    assert ann.post(address("edit", npm.pk), written(npm, "mine.example.com\n", version=2)).status_code == 302


def test_a_set_in_use_keeps_its_name_and_cannot_be_deleted(organization, ann, npm):
    factories.policy(organization, "ci", POLICY)
    renamed = ann.post(address("edit", npm.pk), written(npm, TEXT, name="node"))
    assert renamed.status_code == 422
    assert "before you give the set another name" in renamed.content.decode()
    page = ann.get(address("delete", npm.pk)).content.decode()
    assert "Remove it from these first" in page
    assert ">ci</a>" in page
    assert ann.post(address("delete", npm.pk)).status_code == 409
    assert EndpointSet.objects.exists()


def test_a_set_is_deleted_and_its_history_stays(ann, npm):
    assert ann.post(address("delete", npm.pk))["Location"] == address("list")
    page = ann.get(address("history", npm.pk)).content.decode()
    assert "This endpoint set was deleted. Its history stays." in page
    assert [unescape(found) for found in re.findall(r"<h3>(Endpoint Set [^<]+)</h3>", page)] == [
        "Endpoint Set Deleted",
        "Endpoint Set Created",
    ]
    assert ann.get(address("view", npm.pk)).status_code == 404


def test_history_shows_what_was_said_side_by_side(ann, npm):
    endpoint_sets.UpdateEndpointSet(
        endpoint_set=npm, name="npm", description="New words", text=TEXT + "npmjs.com\n", expected_version=1
    ).apply(by=ANN)
    event = HistoryEvent.objects.get(kind="set_updated")
    page = ann.get(address("history", npm.pk), {"diff": event.pk}).content.decode()
    assert "Endpoint Set Updated" in page
    assert '<td class="added">npmjs.com</td>' in page
    assert "Description: What npm needs → New words" in page
    overview = ann.get(reverse("policies:organization_history", args=["octo-org"])).content.decode()
    assert f'href="{address("history", npm.pk)}">npm</a>' in overview


@pytest.mark.parametrize(("search", "found"), [("", ["npm", "pypi"]), ("NPM", ["npm"]), ("octopackages", ["pypi"])])
def test_sets_are_found_by_name_description_and_endpoint(organization, ann, npm, search, found):
    factories.endpoint_set(organization, "pypi", "octo.org\nfiles.octopackages.org\n")
    factories.policy(organization, "ci", POLICY)
    page = ann.get(address("list"), {"q": search}).content.decode()
    assert re.findall(r'class="cell-name"><div class="cell"><a href="[^"]+">([^<]+)</a>', page) == found


def test_the_pages_of_the_list_keep_the_search(organization, ann):
    for number in range(51):
        factories.endpoint_set(organization, f"set-{number:02}", TEXT)
    factories.endpoint_set(organization, "unrelated", "other.example:443\n")
    page = ann.get(address("list") + "?q=set-").content.decode()
    assert 'href="?q=set-&amp;page=2"' in page
    last = ann.get(address("list") + "?q=set-&page=2").content.decode()
    assert ("set-50" in last, "unrelated" in last) == (True, False)


def test_a_page_of_sets_is_as_many_queries_for_many_as_for_one(organization, ann, npm, django_assert_max_num_queries):
    with django_assert_max_num_queries(12) as first:
        ann.get(address("list"))
    for number in range(30):
        factories.endpoint_set(organization, f"set-{number}")
    with django_assert_max_num_queries(len(first.captured_queries)):
        ann.get(address("list"))


def test_problems_are_told_while_a_set_is_written(ann):
    page = ann.post(address("check"), {"text": "github.com\r\nhttps://x.com/\r\n"}).content.decode()
    assert "Line 2, column 1" in page
    assert "has a scheme" in page


def test_the_editor_of_policies_includes_a_set_without_saving(organization, ann, npm):
    policy = factories.policy(organization, "ci", "egress-policy: block # ours\n")
    edit = reverse("policies:edit", args=["octo-org", policy.pk])
    assert 'name="include" value="npm"' in ann.get(edit).content.decode()
    page = ann.post(edit, {"name": "ci", "text": policy.text, "version": 1, "include": "npm"}).content.decode()
    assert "egress-policy: block # ours\nendpoint-sets: &gt;\n  npm\n</textarea>" in page
    assert Policy.objects.get().version == 1


def test_the_editor_of_policies_tells_of_an_unknown_set(organization, ann, npm):
    check = reverse("policies:check", args=["octo-org"])
    page = ann.post(check, {"text": "egress-policy: block\nendpoint-sets: [nmp]\n"}).content.decode()
    assert "There is no endpoint set named “nmp”. Did you mean “npm”?" in page


def test_the_page_of_a_policy_names_its_sets_and_shows_what_runners_get(organization, ann, npm):
    policy = factories.policy(organization, "ci", POLICY)
    page = ann.get(reverse("policies:view", args=["octo-org", policy.pk])).content.decode()
    assert f'<a href="{address("view", npm.pk)}">npm</a>' in page
    assert "&quot;registry.yarnpkg.com:443&quot;" in page


def test_an_auditor_reads_sets_and_finds_no_way_to_change_them(organization, npm):
    auditor = browser(organization, Role.AUDITOR, "otto")
    page = auditor.get(address("view", npm.pk)).content.decode()
    assert "registry.octo1.org:443" in page
    assert "Edit endpoint set" not in page
    assert auditor.post(address("edit", npm.pk), written(npm, "x.com")).status_code == 403
    assert HistoryEvent.objects.filter(kind="set_updated").count() == 0
