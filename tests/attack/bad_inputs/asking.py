"""How a bad input is put to the store, and what must be true whatever it answers."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.test import Client

from policystore.accounts.models import SYSTEM, Role
from policystore.policies import staging as staged
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import recorder
from tests import factories

APPS = ("inventory", "accounts", "integrations", "policies", "runners", "traffic", "detections")
# A refused call may leave behind only when a key was last used, and what it spent of a rate limit.
LEFT_OUT = {"last_used_at", "last_login"}
LEFT_OUT_MODELS = {"runners.RateLimitUse"}
OWN = "/organizations/octo-org/"
STORE = f"{OWN}policy-store/"
REPOSITORY = "/v1/github/octo-org/hello-world/"
POLICIES = "/v1/github/octo-org/actions/policies/"
GOOD = "egress-policy: block\nallowed-endpoints: >\n  github.com:443\n"


@dataclass(frozen=True)
class Bad:
    """One input: where it goes, and the exact answer: its status, and what the person or program is told.

    `told` is the sentence on the page, or the `error` and `message` of the JSON, as "error: message". `kept` names the
    fields that the page must show again as they were typed.
    """

    name: str
    status: int
    told: str
    path: str = ""
    form: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    kind: str = "application/json"


def rows(cases):
    """The table as pytest wants it."""
    return pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.name) for bad in cases])


def world():
    """octo-org with what can be spoiled, and the credentials of those who try."""
    octo = factories.organization("octo-org")
    policy, holder = factories.policy(octo, "ci", text=GOOD), factories.policy(octo, "holder")
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_repository("octo-org", "hello-world")]).apply(by=SYSTEM)
    attachments.ModifyAttachments(policy=holder, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    staged.StageVersion(policy=policy, text="egress-policy: audit\n", live_version=1, expected_event=None).apply(
        by=SYSTEM
    )
    endpoint_set, integration = factories.endpoint_set(octo), factories.integration(octo)
    keys = {"VM": factories.api_key(octo), "MANAGEMENT": factories.management_key(octo)}
    person = Client(raise_request_exception=False)
    backend = "policystore.accounts.access.RoleBackend"
    person.force_login(factories.member(octo, Role.OWNER), backend=backend)
    fetched = f"{REPOSITORY}actions/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=job-1"
    assert person.get(fetched, headers={"authorization": f"vm-api-key {keys['VM']}"}).status_code == 200
    recorder.flush()
    ids = {"POLICY": policy.pk, "SET": endpoint_set.pk, "INTEGRATION": integration.pk, **keys}
    return SimpleNamespace(client=person, ids=ids, organization=octo, policy=policy)


def everything():
    """All that the store holds."""
    models = [model for app in APPS for model in apps.get_app_config(app).get_models(include_auto_created=True)]
    return {
        model._meta.label: [
            {name: value for name, value in row.items() if name not in LEFT_OUT}
            for row in model._base_manager.order_by("pk").values()
        ]
        for model in models
        if model._meta.label not in LEFT_OUT_MODELS
    }


def filled(value, ids):
    """The value with its {POLICY} and the like filled in."""
    if isinstance(value, str):
        return re.sub(r"\{([A-Z]+)\}", lambda found: str(ids.get(found.group(1), found.group())), value)
    return value


def ask(there, bad):
    """Put the input to the store as a browser or a program would."""
    path, headers = filled(bad.path, there.ids), {k: filled(v, there.ids) for k, v in bad.headers.items()}
    if bad.form:
        form = {name: filled(value, there.ids) for name, value in bad.form.items()}
        return there.client.post(path, form, headers=headers)
    client = Client(raise_request_exception=False) if path.startswith("/v1") else there.client
    body = bad.body if isinstance(bad.body, bytes) else b"" if bad.body is None else json.dumps(bad.body).encode()
    return client.generic(bad.method, path, body, content_type=bad.kind, headers=headers)


def told_by(answer):
    """What the answer tells: a page's text without its marks, or `error: message` of JSON."""
    text = answer.content.decode()
    if answer.headers.get("content-type", "").startswith("application/json"):
        told = json.loads(text)
        return f"{told['error']}: {told['message']}"
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def check(there, bad):
    """The answer is the one of the table, what was typed is still there, and the store is what it was."""
    before = everything()
    answer = ask(there, bad)
    assert (answer.status_code, bad.told in told_by(answer)) == (bad.status, True), told_by(answer)
    page = answer.content.decode()
    for name in bad.kept:
        typed = html.escape(str(bad.form[name])).replace("&#x27;", "&#39;").replace("\r\n", "\n")
        assert typed in page.replace("&#x27;", "&#39;").replace("\r\n", "\n"), f"{name} was lost"
    recorder.flush()
    assert everything() == before
