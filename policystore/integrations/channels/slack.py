"""Slack, by an incoming webhook, or by a bot's token and a channel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from django.conf import settings
from django.urls import reverse

from policystore.integrations import event_catalog, http_client
from policystore.integrations.http_client import Outcome, Result
from policystore.integrations.models import Integration, OutboxMessage

# Slack's errors for a bot whose token will never work again.
_GONE = frozenset({"account_inactive", "token_revoked", "is_archived"})
_BUSY = frozenset({"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"})


def send(integration: Integration, secrets: Mapping[str, object], messages: Sequence[OutboxMessage]) -> Outcome:
    """Write one event into the channel. Raises NotSent."""
    [message] = messages
    content = content_of(message.kind, json.loads(message.payload), integration.organization.login)
    if webhook := secrets.get("webhook_url"):
        return http_client.outcome_of(_post(str(webhook), content, message))
    channel = {**content, "channel": integration.config["channel"]}
    reply = _post(f"{settings.SLACK_API_URL}/chat.postMessage", channel, message, token=str(secrets["bot_token"]))
    return _as_bot(http_client.outcome_of(reply), reply.body)


def _post(url: str, content: Mapping[str, Any], message: OutboxMessage, *, token: str = "") -> http_client.Reply:
    headers = {"Content-Type": "application/json; charset=utf-8", "webhook-id": message.webhook_id}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return http_client.send("POST", url, headers=headers, body=json.dumps(content).encode())


def _as_bot(outcome: Outcome, body: bytes) -> Outcome:
    """Slack answers a bot with 200 and says in the body whether it was done."""
    if outcome.result != Result.DELIVERED:
        return outcome
    try:
        answer = json.loads(body)
        done, problem = (
            answer["ok"] is True,
            http_client.excerpt(str(answer.get("error", "")).encode("utf-8", "replace")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return replace(outcome, result=Result.FAILED, error="The answer did not come from Slack's API.")
    if done:
        return outcome
    result = Result.GONE if problem in _GONE else Result.FAILED if problem in _BUSY else Result.REFUSED
    return replace(outcome, result=result, error=f"Slack refused the message: {problem[:100]}.")


MAX_VALUE: Final = 150
MAX_FACTS: Final = 8
MAX_LISTED: Final = 5
# Slack refuses a section of more than 3,000 characters; eight facts and a sentence stay below it.
MAX_SECTION: Final = 3000
Payload = Mapping[str, Any]

_RUN = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/actions/runs/[0-9]+")
# Never shown as facts: ids, long texts, and what the sentence already says.
_NO_FACT: Final = frozenset(
    {"actor", "actor_kind", "at", "text", "details", "version", "name", "policy"}
    | {"change", "decision", "subject", "scope", "why"}
)


def content_of(kind: str, payload: Payload, owner: str) -> dict[str, Any]:
    """The message as Slack's API takes it: blocks to show, and `text` for notifications and screen readers."""
    sentence = _SENTENCES.get(kind, _other)(kind, payload, owner)
    facts = [f"• {_words(name)}: {shown}" for name, shown in _facts(kind, payload)][:MAX_FACTS]
    text = "\n".join([sentence, *facts])[:MAX_SECTION]
    blocks: list[dict[str, Any]] = [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]
    if links := " · ".join(_links(kind, payload, owner)):
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": links}]})
    return {"text": sentence, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def code(value: object) -> str:
    """Any text in a code span, in which Slack shows it as it is, on one line and cut where it is long."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    text = " ".join(text.replace("`", "'").split())
    text = text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"
    return f"`{_escaped(text)}`" if text else "`(empty)`"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _words(name: str) -> str:
    return _escaped(name.replace("_", " ").capitalize())


def _place(payload: Payload, owner: str) -> str:
    """Describe where a job ran: its repository, workflow and job, as far as they are known."""
    repository = "/".join(filter(None, (str(payload.get("owner") or owner), str(payload.get("repo") or ""))))
    parts = [("workflow", payload.get("workflow_id")), ("job", payload.get("job"))]
    known = ", ".join(f"{name} {code(value)}" for name, value in parts if value)
    return f"{code(repository)} ({known})" if known else code(repository)


def _called(payload: Payload) -> str:
    process = payload.get("process")
    return f"{code(process) if process else 'a process'} to {code(payload.get('endpoint') or 'an unknown endpoint')}"


def _policy(payload: Payload) -> str:
    name = payload.get("policy_name")
    return f"policy {code(name)}" if name else "no policy"


def _seen(kind: str, payload: Payload, owner: str) -> str:
    """What an agent saw or did in a job."""
    place, policy = _place(payload, owner), _policy(payload)
    if kind == event_catalog.BLOCKED_CALL:
        return f"*Blocked a call* from {_called(payload)} in {place}, by {policy}."
    if kind == event_catalog.NEW_ENDPOINT:
        return f"*New endpoint:* first call from {_called(payload)} in {place}, under {policy}."
    where = f"in {place}{_evidence(payload)}, under {policy}"
    if kind == event_catalog.DETECTION:
        return f"*{_title(payload)}* {where}."
    ended = "Lockdown ended a job" if payload.get("job_terminated") else "Lockdown detection"
    return f"*{ended}:* {_title(payload)} {where}."


def _title(payload: Payload) -> str:
    return code(payload.get("name") or payload.get("id") or "Detection")


def _evidence(payload: Payload) -> str:
    found, process = payload.get("detection") or payload.get("endpoint"), payload.get("process")
    by = f" by {code(process)}" if process else ""
    return f": {code(found)}{by}" if found else by


def _changed(kind: str, payload: Payload, owner: str) -> str:
    mode = f" ({code(payload['egress_policy'])})" if payload.get("egress_policy") else ""
    by = f"{code(payload.get('actor', 'Someone'))} *{kind.partition('.')[2]}*"
    return f"{by} policy {code(payload.get('policy', ''))}{mode} in {code(owner)}."


def _requested(kind: str, payload: Payload, owner: str) -> str:
    decision = payload.get("decision")
    done = decision if decision in ("approved", "declined", "withdrawn") else "decided"
    verb = "requests approval" if kind == event_catalog.CHANGE_REQUESTED else done
    what = f"{code(payload.get('change', 'a change'))} of {code(payload.get('subject', ''))} in {code(owner)}"
    return f"{code(payload.get('actor', 'Someone'))} *{verb}:* {what}."


def _break_glass(kind: str, payload: Payload, owner: str) -> str:
    by, scope = code(payload.get("actor", "Someone")), code(payload.get("scope", owner))
    details, done = payload.get("details", {}), kind.partition(".")[2]
    until = details["until"] if done == "started" and "until" in details else ""
    effect = f" Nothing is blocked there until {code(until)}." if until else ""
    return f"{by} *{done} break glass* for {scope}.{effect}"


def _test(kind: str, payload: Payload, owner: str) -> str:
    name, by = code(payload.get("integration", "")), code(payload.get("by", ""))
    return f"*Test message* of {name}, sent by {by} from {code(owner)}."


def _other(kind: str, payload: Payload, owner: str) -> str:
    subject = payload.get("policy") or payload.get("endpoint_set") or payload.get("subject")
    about = f" {code(subject)}" if subject else ""
    by = f" by {code(payload['actor'])}" if payload.get("actor") else ""
    return f"*{_escaped(event_catalog.label_of(kind))}*{about} in {code(owner)}{by}."


_OF_AGENTS: Final = frozenset(
    {event_catalog.BLOCKED_CALL, event_catalog.NEW_ENDPOINT, event_catalog.DETECTION, event_catalog.LOCKDOWN}
)
_SENTENCES: Final[Mapping[str, Callable[[str, Payload, str], str]]] = {
    **dict.fromkeys(_OF_AGENTS, _seen),
    event_catalog.POLICY_CREATED: _changed,
    event_catalog.POLICY_UPDATED: _changed,
    event_catalog.POLICY_ATTACHED: _changed,
    event_catalog.POLICY_DETACHED: _changed,
    event_catalog.POLICY_DELETED: _changed,
    event_catalog.CHANGE_REQUESTED: _requested,
    event_catalog.CHANGE_DECIDED: _requested,
    event_catalog.BREAK_GLASS_STARTED: _break_glass,
    event_catalog.BREAK_GLASS_ENDED: _break_glass,
    event_catalog.TEST: _test,
}
# Their sentences say everything.
_WITHOUT_FACTS: Final = _OF_AGENTS | {event_catalog.TEST}


def _facts(kind: str, payload: Payload) -> Iterator[tuple[str, str]]:
    if kind in _WITHOUT_FACTS:
        return
    details = payload.get("details")
    every = {**(details if isinstance(details, Mapping) else {}), **payload}
    if isinstance(details, Mapping) and "why" in details and not every.get("reason"):
        every["reason"] = details["why"]
    for name, value in every.items():
        if name in _NO_FACT or name.endswith(("_id", "_count", "_before", "_after")) or isinstance(value, Mapping):
            continue
        if isinstance(value, list):
            texts = [item for item in value if isinstance(item, str)]
            more = f" and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else ""
            if texts:
                yield name, ", ".join(map(code, texts[:MAX_LISTED])) + more
        elif isinstance(value, str) and value.strip():
            yield name, code(value)


def _links(kind: str, payload: Payload, owner: str) -> Iterator[str]:
    run = str(payload.get("html_url") or "")
    if _RUN.fullmatch(run):
        yield f"<{run}|Workflow run on GitHub>"
    yield f"<{settings.PUBLIC_URL}{_path(kind, payload, owner)}|Open in Policy Store>"


def _path(kind: str, payload: Payload, owner: str) -> str:
    if kind in _OF_AGENTS:
        number = payload.get("detection_number")
        if isinstance(number, int):
            return reverse("detections:detection", args=(owner, number))
        return reverse("detections:list", args=(owner,))
    if kind in (event_catalog.CHANGE_REQUESTED, event_catalog.CHANGE_DECIDED) and isinstance(
        payload.get("change_request_id"), int
    ):
        return reverse("policies:change-request", args=(owner, payload["change_request_id"]))
    if kind in (event_catalog.BREAK_GLASS_STARTED, event_catalog.BREAK_GLASS_ENDED):
        return reverse("policies:break_glass", args=(owner,))
    if isinstance(payload.get("policy_id"), int):
        # The history of a policy outlives it.
        return reverse("policies:history", args=(owner, payload["policy_id"]))
    return reverse("policies:organization_history", args=(owner,))
