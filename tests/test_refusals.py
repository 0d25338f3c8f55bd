"""What is refused before any view sees it: a page for people, JSON for programs, and never a failure of the store."""

import pytest
from django.test import Client
from django.urls import reverse

from policystore.accounts.roles import Role
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

TOKEN = "x" * 32
FORM = "application/x-www-form-urlencoded"
UNREADABLE = [
    (f"{FORM}; charset=utf-16", b"name=x"),
    ("multipart/form-data", b"name=x"),
]


@pytest.fixture
def ann():
    """A browser with a CSRF token: what checks it reads the body first."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False, headers={"x-csrftoken": TOKEN})
    client.cookies["csrftoken"] = TOKEN
    person = factories.member(factories.organization("octo-org"), Role.OWNER)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def new(client, body, kind=FORM):
    return client.generic("POST", reverse("policies:new", args=["octo-org"]), body, content_type=kind)


@pytest.mark.parametrize(("kind", "body"), UNREADABLE)
def test_a_form_that_cannot_be_read_gets_a_page_that_says_so(ann, kind, body):
    answer = new(ann, body, kind)
    assert answer.status_code == 400
    assert "The request is malformed" in answer.content.decode()


@pytest.mark.parametrize("body", [b"text=" + b"x" * 1_100_000, b"&".join([b"add=x"] * 20_001)])
def test_a_form_that_is_too_large_gets_a_page_that_names_the_limits(ann, body):
    answer = new(ann, body)
    assert answer.status_code == 413
    assert "at most 1 MiB and 20,000 fields" in answer.content.decode()


@pytest.mark.parametrize(
    ("path", "above"),
    [
        ("settings/harden-runner-installation/regenerate/", "settings/harden-runner-installation/"),
        ("settings/inventory/clusters/1/unverified/", "settings/inventory/"),
        ("policy-store/1/staged/canaries/", "policy-store/1/staged/"),
        ("baseline/import/", "baseline/"),
        ("impact/draft/", None),
    ],
)
def test_a_reload_of_what_a_form_has_led_to_links_to_the_page_above_it(ann, path, above):
    answer = ann.get(f"/organizations/octo-org/{path}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    link = f"/organizations/octo-org/{above}" if above else "/"
    assert f'href="{link}"' in answer.content.decode()


def test_a_foreign_host_name_gets_a_page_that_says_where_names_are_listed(ann):
    answer = ann.get("/sign-in/", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert "ALLOWED_HOSTS" in answer.content.decode()


@pytest.mark.parametrize("path", ["/v1/nowhere", "/v1/", "/v1//", "/v1/nowhere%0A", "/v1/%0A/x", "/v1/a/../b"])
def test_every_address_below_v1_refuses_in_json(path):
    assert (ask("GET", path).status, ask("GET", path).json()["error"]) == (404, "unknown_route")


@pytest.mark.parametrize("path", ["/auth/github/login/", "/auth/github/login/callback/?code=x&state=y"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_githubs_addresses_lead_to_the_sign_in_page_where_github_is_not_set_up(db, path, method):
    answer = getattr(Client(), method)(path)
    assert (answer.status_code, answer["location"]) == (302, "/sign-in/")
