"""GitHub in a test's own process: people, organizations by numeric id, and what goes wrong."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import requests
from allauth.socialaccount.providers.oauth2.client import OAuth2Client
from django.test import Client

API = "https://api.github.com"
MEMBERSHIPS = "/user/memberships/orgs"


class FakeGitHub:
    """Answers `requests.get` as GitHub does; a token is the numeric id of the person who signs in."""

    def __init__(self):
        self.logins = {}
        self.names = {}
        self.organizations = {}
        self.roles = {}
        self.failures = {}
        self.asked = []

    def person(self, github_id, login, name=""):
        """Someone new, or with a new login."""
        self.logins[github_id], self.names[github_id] = login, name

    def organization(self, github_id, login):
        """An organization, new or renamed."""
        self.organizations[github_id] = login

    def join(self, person, organization, role="member", state="active"):
        self.roles[person, organization] = (role, state)

    def leave(self, person, organization):
        del self.roles[person, organization]

    def fail(self, status, *, path=MEMBERSHIPS, body="", **headers):
        """Answer this path so, until `recover`; an exception instead of a status is raised."""
        self.failures[path] = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def recover(self):
        self.failures.clear()

    def get(self, address, *, params, headers, timeout, allow_redirects):
        path = urlsplit(address.removeprefix(API)).path
        self.asked.append(path)
        assert timeout
        assert not allow_redirects
        if path in self.failures:
            status, body, extra = self.failures[path]
            if isinstance(status, Exception):
                raise status
            return _response(status, body, extra)
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        return self._answer(path, int(token) if token else None)

    def _answer(self, path, person):
        if path == "/user":
            login, name = self.logins[person], self.names[person]
            return _response(200, json.dumps({"id": person, "login": login, "name": name, "email": "x@example.com"}))
        rows = [self._row(one, organization) for one, organization in self.roles if one == person]
        if path == MEMBERSHIPS:
            return _response(200, json.dumps([row for row in rows if row["state"] == "active"]))
        named = [row for row in rows if path == f"{MEMBERSHIPS}/{row['organization']['login']}".lower()]
        return _response(200, json.dumps(named[0])) if named else _response(404, '{"message": "Not Found"}')

    def _row(self, person, organization):
        role, state = self.roles[person, organization]
        login = self.organizations[organization]
        return {"state": state, "role": role, "organization": {"id": organization, "login": login}}


def _response(status, body, headers=()):
    response = requests.Response()
    response.status_code, response._content = status, body.encode()
    response.headers.update(headers)
    return response


def install(monkeypatch, settings):
    """Put a GitHub in place on which `octo-org` has the id 1."""
    github = FakeGitHub()
    settings.GITHUB_CLIENT_ID = "client"
    settings.GITHUB_ALLOWED_ORGANIZATIONS, settings.GITHUB_ORGANIZATION_IDS = ["octo-org"], {}
    apps = [{"client_id": "client", "secret": "client-secret", "key": ""}]
    settings.SOCIALACCOUNT_PROVIDERS = {"github": {**settings.SOCIALACCOUNT_PROVIDERS["github"], "APPS": apps}}
    monkeypatch.setattr(requests, "get", github.get)
    monkeypatch.setattr(
        OAuth2Client, "get_access_token", lambda self, code, **_: {"access_token": code, "token_type": "bearer"}
    )
    github.organization(1, "octo-org")
    return github


def sign_in(github_id, client=None, query=""):
    """Sign in with GitHub as this person; returns the client and the last answer."""
    client = client or Client()
    answer = client.post(f"/auth/github/login/{query}")
    assert answer.status_code == 302, answer.status_code
    asked = dict(pair.split("=", 1) for pair in urlsplit(answer["Location"]).query.split("&"))
    answer = client.get("/auth/github/login/callback/", {"code": str(github_id), "state": asked["state"]})
    return client, answer
