"""What Slack messages say: first what a person needs, and nothing of a stranger's text as a link or a mention."""

import json
import re

import pytest

from policystore.accounts.models import Actor
from policystore.integrations import event_catalog
from policystore.integrations.channels.slack import code, content_of
from policystore.integrations.models import OutboxMessage
from policystore.policies import break_glass, never_allow
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from tests import factories

HOSTILE = [
    "<!channel>",
    "<!here|x>",
    "<@U123>",
    "@channel",
    "<https://evil.example|click>",
    "https://evil.example/?a=1&b=2",
    "evil.example",
    "`*bold*` _it_ ~no~",
    "`` ` ```",
    "a\nb\r\n> quote",
    "\u2028<!here>\u202e",
    "mailto:x@evil.example",
    "&lt;!here&gt;",
    "*" * 5_000,
    ":rotating_light:",
    "",
]
JOB = {
    "name": "Blocked call",
    "id": "Domain-Blocked",
    "owner": "octo-org",
    "repo": "app",
    "workflow_id": "ci.yml",
    "run_id": "77",
    "job_id": "0a1b",
    "job": "build",
    "detection": "evil.example:443",
    "endpoint": "evil.example:443",
    "process": "curl",
    "policy_name": "baseline",
    "html_url": "https://github.com/octo-org/app/actions/runs/77",
    "detection_number": 12,
}
WHERE = "`octo-org/app` (workflow `ci.yml`, job `build`)"
BY = {"actor": "maria", "actor_kind": "user", "policy": "ci", "policy_id": 7, "version": 2, "history_event_id": 91}
SENTENCES = [
    (
        event_catalog.BLOCKED_CALL,
        JOB,
        f"*Blocked a call* from `curl` to `evil.example:443` in {WHERE}, by policy `baseline`.",
    ),
    (
        event_catalog.BLOCKED_CALL,
        {"endpoint": "evil.example:443"},
        "*Blocked a call* from a process to `evil.example:443` in `octo-org`, by no policy.",
    ),
    (
        event_catalog.NEW_ENDPOINT,
        JOB,
        f"*New endpoint:* first call from `curl` to `evil.example:443` in {WHERE}, under policy `baseline`.",
    ),
    (
        event_catalog.DETECTION,
        JOB | {"name": "Reverse shell", "detection": "bash -i"},
        f"*`Reverse shell`* in {WHERE}: `bash -i` by `curl`, under policy `baseline`.",
    ),
    (
        event_catalog.LOCKDOWN,
        JOB | {"name": "Reverse shell", "detection": "bash -i", "is_lockdown": True, "job_terminated": True},
        f"*Lockdown ended a job:* `Reverse shell` in {WHERE}: `bash -i` by `curl`, under policy `baseline`.",
    ),
    (
        event_catalog.LOCKDOWN,
        JOB | {"name": "Reverse shell", "detection": "", "process": "", "endpoint": "", "job_terminated": False},
        f"*Lockdown detection:* `Reverse shell` in {WHERE}, under policy `baseline`.",
    ),
    (
        event_catalog.POLICY_UPDATED,
        BY | {"egress_policy": "block", "reason": "Incident"},
        "`maria` *updated* policy `ci` (`block`) in `octo-org`.",
    ),
    (
        event_catalog.CHANGE_REQUESTED,
        BY | {"change": "Update", "subject": "ci", "change_request_id": 4},
        "`maria` *requests approval:* `Update` of `ci` in `octo-org`.",
    ),
    (
        event_catalog.CHANGE_DECIDED,
        BY | {"change": "Update", "subject": "ci", "change_request_id": 4, "decision": "approved"},
        "`maria` *approved:* `Update` of `ci` in `octo-org`.",
    ),
    (
        event_catalog.BREAK_GLASS_STARTED,
        BY | {"scope": "repository:octo-org/app", "details": {"until": "2026-12-01 12:00:00 UTC", "why": "Release"}},
        "`maria` *started break glass* for `repository:octo-org/app`. "
        "Nothing is blocked there until `2026-12-01 12:00:00 UTC`.",
    ),
    (
        event_catalog.NEVER_ALLOW_ADDED,
        {"actor": "maria", "details": {"host": "evil.example"}, "reason": "Malware"},
        "*Never-allow host added* in `octo-org` by `maria`.",
    ),
    (
        event_catalog.TEST,
        {"integration": "sec", "by": "maria"},
        "*Test message* of `sec`, sent by `maria` from `octo-org`.",
    ),
]


def texts_of(content):
    yield content["text"]
    for block in content["blocks"]:
        yield block["text"]["text"] if "text" in block else block["elements"][0]["text"]


@pytest.mark.parametrize(("kind", "payload", "sentence"), SENTENCES)
def test_a_message_begins_with_a_sentence(kind, payload, sentence):
    content = content_of(kind, payload, "octo-org")
    assert content["text"] == sentence
    assert content["blocks"][0]["text"]["text"].split("\n")[0] == sentence
    assert (content["unfurl_links"], content["unfurl_media"]) == (False, False)


def test_a_blocked_call_links_to_its_run_and_to_the_store(settings):
    settings.PUBLIC_URL = "https://store.example"
    *_, links = texts_of(content_of(event_catalog.BLOCKED_CALL, JOB, "octo-org"))
    assert links == (
        "<https://github.com/octo-org/app/actions/runs/77|Workflow run on GitHub> · "
        "<https://store.example/organizations/octo-org/detections/12/|Open in Policy Store>"
    )


def test_ids_are_left_out():
    facts = content_of(event_catalog.POLICY_UPDATED, BY | {"reason": "Incident"}, "octo-org")["blocks"][0]["text"][
        "text"
    ]
    assert facts.split("\n")[1:] == ["• Reason: `Incident`"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(("kind", "payload", "_"), SENTENCES)
def test_strangers_texts_are_shown_in_code_alone(kind, payload, _, hostile, settings):
    settings.PUBLIC_URL = "https://store.example"
    numbers = ("policy_id", "detection_number", "change_request_id")
    made = {
        name: dict.fromkeys(value, hostile)
        if isinstance(value, dict)
        else value
        if isinstance(value, bool) or name in numbers
        else hostile
        for name, value in payload.items()
    } | {"scopes_added": [hostile] * 7, "reason": hostile}
    content = content_of(kind, made, "octo-org")
    for text in texts_of(content):
        outside = re.sub(r"`[^`\n]+`", "", text)
        links = re.findall(r"<[^>]*>", outside)
        assert all(link.startswith("<https://store.example/") for link in links), links
        rest = re.sub(r"<[^>]*>", "", outside)
        assert "<" not in text.replace("<https://store.example/", "")
        assert "`" not in outside
        assert not re.search(r"evil|@|channel|\bhere\b|:rot", rest), rest
        assert len(text) <= 3000


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_code_span_ends_where_it_should(hostile):
    shown = code(hostile)
    assert re.fullmatch(r"`[^`\n\r<>\u2028]+`", shown)


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "https://github.com/o/r|x/actions/runs/1", "https://github.com/o/<!here>/actions/runs/1"],
)
def test_only_addresses_of_runs_become_links(url):
    *_, links = texts_of(content_of(event_catalog.BLOCKED_CALL, JOB | {"html_url": url}, "octo-org"))
    assert links.count("<") == 1


@pytest.mark.django_db
def test_every_message_that_the_store_writes_has_a_sentence_and_a_link():
    organization = factories.organization()
    factories.integration(organization)
    maria = Actor("maria")
    policy = factories.policy(organization)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=maria)
    never_allow.add(organization=organization, host="evil.example", reason="Malware", by=maria)
    glass = break_glass.start(
        organization=organization, scope=Scope.for_organization("octo-org"), hours=1, reason="Incident", by=maria
    )
    break_glass.end(break_glass=glass, by=maria)
    factories.endpoint_set(organization)
    policies.DeletePolicy(policy=policy).apply(by=maria)
    kinds = set()
    for message in OutboxMessage.objects.order_by("pk"):
        kinds.add(message.kind)
        sentence, *_, links = texts_of(content_of(message.kind, json.loads(message.payload), "octo-org"))
        assert sentence.startswith(("*", "`maria`", "`Policy Store`"))
        assert "/organizations/octo-org/" in links
    assert kinds >= {
        "policy.created",
        "policy.attached",
        "never_allow.added",
        "break_glass.started",
        "break_glass.ended",
        "endpoint_set.created",
        "policy.deleted",
    }
