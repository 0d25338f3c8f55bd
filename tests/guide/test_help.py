"""The help pages: each renders, its links lead somewhere, its facts are the code's, and pages link to their topic."""

import re
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from django.conf import settings
from django.test import Client
from django.urls import resolve, reverse

from policystore.accounts.roles import ADDED, PERMISSIONS, Role
from policystore.guide import topics
from policystore.integrations import event_catalog
from policystore.policy_language.document import check
from policystore.policy_language.values import DETECTION_TYPES, KNOWN_KEYS
from tests import factories
from tests.test_permissions import PAGES, POST_ONLY, addresses

pytestmark = pytest.mark.django_db

LINK = re.compile(r'<a\b[^>]*?href="([^"]*)"', re.DOTALL)
CODE = re.compile(r'<pre[^>]*aria-label="A [^"]*policy[^"]*"[^>]*>(.*?)</pre>', re.DOTALL)
# Answered with a download or a fragment, without the frame of a page.
NO_PAGES = {"baseline:export", "policies:export_history", "runners-settings:script", "detections:of-run"}


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def owner(organization):
    return signed_in(organization, Role.OWNER)


def signed_in(organization, role):
    client = Client()
    client.force_login(factories.member(organization, role), backend="policystore.accounts.access.RoleBackend")
    return client


def shown(client, address):
    response = client.get(address)
    assert response.status_code == 200, address
    return response.content.decode()


def of_topic(client, name):
    return shown(client, reverse("help:topic", args=["octo-org", name])).split("<article")[1].split("</article>")[0]


def test_each_link_of_a_topic_leads_to_a_page(owner):
    found = {}
    for name in topics.TOPICS:
        address = reverse("help:topic", args=["octo-org", name])
        for link in LINK.findall(shown(owner, address)):
            target = urlsplit(urljoin(address, unescape(link)))
            # Many topics link to the same pages, so each page is asked for only once.
            found.setdefault(f"{target.path}?{target.query}", (name, link))
    for address, place in found.items():
        assert owner.get(address, follow=True).status_code == 200, place


def test_each_topic_has_a_text_and_each_text_is_a_topic():
    folder = Path(settings.BASE_DIR) / "templates" / "help" / "topics"
    assert {path.stem for path in folder.iterdir()} == set(topics.TOPICS)


def test_each_page_links_to_a_topic():
    names = {address: resolve("/" + re.sub(r"<\w+:\w+>", "1", address)) for address in addresses() if address in PAGES}
    views = {found.view_name for address, found in names.items() if PAGES[address] is not POST_ONLY}
    pages = {view for view in views if not view.startswith(("help:", "own-")) and view != "home"} - NO_PAGES
    without = {view for view in pages if not {view, view.rpartition(":")[0]} & topics.TOPIC_OF_PAGE.keys()}
    assert without == set()
    assert set(topics.TOPIC_OF_PAGE.values()) <= topics.TOPICS.keys()
    known = {found.view_name for found in names.values()} | {found.namespace for found in names.values()}
    assert topics.TOPIC_OF_PAGE.keys() <= known


@pytest.mark.parametrize(
    ("page", "topic"), [("policies:list", "policies"), ("which", "scopes"), ("coverage", "runs"), ("four-eyes",) * 2]
)
def test_the_header_of_a_page_links_to_its_topic(owner, page, topic):
    head = shown(owner, reverse(page, args=["octo-org"])).split("page-head")[1].split("</h1>")[1]
    assert LINK.findall(head)[0] == reverse("help:topic", args=["octo-org", topic])


def test_the_sidebar_links_to_the_help(owner):
    sidebar = shown(owner, reverse("policies:list", args=["octo-org"])).split("<main")[0]
    assert reverse("help:contents", args=["octo-org"]) in LINK.findall(sidebar)


def test_an_address_without_an_organization_leads_to_the_own_one(owner):
    assert owner.get("/help/").headers["Location"] == "/organizations/octo-org/help/"
    assert owner.get("/help/scopes/").headers["Location"] == "/organizations/octo-org/help/scopes/"


def test_an_unknown_topic_is_not_there(owner):
    assert owner.get(reverse("help:topic", args=["octo-org", "nowhere"])).status_code == 404


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("REUSABLE workflows use the caller", "scopes"),
        ("Go from audit", "audit-to-block"),
        ("v1/github/octo-org", "api"),
        ("Slack", "events"),
        ("msg_", "events"),
        ("Runner-Worker-Memory", "lockdown"),
    ],
)
def test_a_search_finds_titles_and_texts(organization, query, name):
    auditor = signed_in(organization, Role.AUDITOR)
    page = shown(auditor, f"{reverse('help:contents', args=['octo-org'])}?q={query}").split("<main")[1]
    assert reverse("help:topic", args=["octo-org", name]) in LINK.findall(page)
    assert query in page


def test_a_title_comes_before_texts_and_markup_is_not_searched(owner):
    contents = reverse("help:contents", args=["octo-org"])
    page = shown(owner, f"{contents}?q=baseline").split("<main")[1]
    first = next(link for link in LINK.findall(page) if "/help/" in link and link != contents)
    assert first == reverse("help:topic", args=["octo-org", "baseline"])
    assert "0 topics with" in shown(owner, f"{contents}?q=tabindex")
    assert "&lt;b&gt;" in shown(owner, f"{contents}?q=<b>")


def test_it_shows_the_addresses_of_this_store(owner, settings):
    settings.PUBLIC_URL, settings.RUNNER_URL = "https://store.octo.example", "https://fetch.octo.example:8001"
    page = of_topic(owner, "first-runner")
    assert "https://store.octo.example/v1" in page
    assert "https://fetch.octo.example:8001/v1/github/octo-org" in page
    assert "https://fetch.octo.example:8001/v1/clusters/NAME" in of_topic(owner, "arc")
    assert "https://store.octo.example" in of_topic(owner, "terraform")


def test_the_facts_are_those_of_the_code(owner):
    assert all(f"<dt><code>{key}</code>" in of_topic(owner, "policy-keys") for key in KNOWN_KEYS)
    assert all(f"<td><code>{kind}</code></td>" in of_topic(owner, "events") for kind in event_catalog.EVENTS)
    assert all(f"<dt><code>{name}</code>" in of_topic(owner, "lockdown") for name in DETECTION_TYPES)
    page = of_topic(owner, "endpoints")
    assert "allows <code>github.com:443</code>" in page
    assert "“https://octo.example” has a scheme" in unescape(page)


def test_each_permission_of_a_role_is_described():
    described = [name for added in ADDED.values() for name in added]
    assert len(described) == len(set(described))
    assert PERMISSIONS[Role.OWNER] == set(described)


@pytest.mark.parametrize("name", ["policies", "endpoint-sets", "lockdown", "policy-keys"])
def test_the_policies_that_it_shows_are_valid(owner, name):
    texts = CODE.findall(of_topic(owner, name))
    assert texts
    for text in texts:
        assert not check(unescape(text).strip()).errors


def test_the_step_and_the_environment_keep_their_lines(owner):
    step = unescape(of_topic(owner, "first-runner"))
    assert "  - uses: step-security/harden-runner@v2\n    with:\n      use-policy-store: true\n" in step
    assert "\nexport STEP_SECURITY_CUSTOMER=octo-org</pre>" in of_topic(owner, "terraform")
