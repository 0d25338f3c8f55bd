"""The topics of the help pages, which topic each page links to, and the search through them.

A topic's text is `templates/help/topics/NAME.html`. What the code knows (keys, roles, events, limits) is in the context
that `facts` returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from textwrap import shorten
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import strip_tags

from policystore.accounts.roles import ADDED, Role
from policystore.api import openapi
from policystore.audit_log import event_types
from policystore.detections.models import TITLES
from policystore.enforcers.registry import ENFORCERS
from policystore.integrations import event_catalog
from policystore.inventory.models import Organization
from policystore.policies import break_glass, compiler, exceptions, staging
from policystore.policies.core import name_validation
from policystore.policy_language import endpoint_matcher, endpoint_parser, endpoint_sets, values, yaml_reader
from policystore.policy_language.endpoint_parser import Entry, clean, unlistable
from policystore.policy_language.scopes import PRECEDENCE
from policystore.runners.models import Enforcement

EXCERPT = 160
# Endpoints as people write them, for the grammar: what becomes of each is what the parser says.
EXAMPLES = (
    "github.com",
    "registry.octo.example:8443",
    "*.octo.example:443",
    "*.*.octo.example:443",
    "https://octo.example",
    "octo.example:abc",
    "octo.example:70000",
    "10.0.0.0/8",
    "10.0.0.7:443",
    "metadata.google.internal:80",
    "octo.example,github.com",
)


@dataclass(frozen=True, slots=True)
class Topic:
    """A help page; `name` is its address and the name of its template."""

    name: str
    title: str

    @property
    def template(self) -> str:
        """The template of its text."""
        return f"help/topics/{self.name}.html"


SECTIONS: dict[str, tuple[Topic, ...]] = {
    "Concepts": (
        Topic("policies", "Policies and modes"),
        Topic("scopes", "Scopes and precedence"),
        Topic("baseline", "Baselines"),
        Topic("endpoint-sets", "Endpoint sets and never-allow hosts"),
        Topic("global-blocklist", "The global blocklist"),
        Topic("lockdown", "Lockdown mode"),
        Topic("staged-versions", "Staged versions"),
        Topic("runs", "Runs, coverage and insights"),
        Topic("detections", "Detections"),
        Topic("history", "History and versions"),
    ),
    "How to": (
        Topic("first-runner", "Connect the first runner"),
        Topic("first-policy", "Create the first policy"),
        Topic("audit-to-block", "Go from audit to block"),
        Topic("arc", "Use ARC clusters"),
        Topic("other-enforcers", "Use other enforcers"),
        Topic("terraform", "Use Terraform"),
        Topic("policy-as-code", "Keep policies as code"),
        Topic("four-eyes", "Require a second person (four eyes)"),
        Topic("break-glass", "Break glass and add exceptions"),
    ),
    "Reference": (
        Topic("policy-keys", "Keys of a policy"),
        Topic("endpoints", "Endpoints"),
        Topic("roles", "Roles and sign-in"),
        Topic("events", "Events and webhooks"),
        Topic("api", "API"),
    ),
}
TOPICS = {topic.name: topic for topics in SECTIONS.values() for topic in topics}
# The topic of each page, by the name of its view or by its namespace.
TOPIC_OF_PAGE = {
    "policies": "policies",
    "policies:new": "first-policy",
    "policies:edit": "policy-keys",
    "policies:attach": "scopes",
    "policies:detach": "scopes",
    "search": "policies",
    "which": "scopes",
    "policies:break_glass": "break-glass",
    "policies:change-requests": "four-eyes",
    "policies:change-request": "four-eyes",
    "four-eyes": "four-eyes",
    "policies:history": "history",
    "policies:organization_history": "history",
    "policies:account_history": "history",
    "policies:versions": "history",
    "policies:version": "history",
    "policies:compare": "history",
    "policies:restore": "history",
    "policies:managed": "policy-as-code",
    "policies:enforcers": "other-enforcers",
    "policies:staged": "staged-versions",
    "staged-counts": "staged-versions",
    "endpoint-sets": "endpoint-sets",
    "never-allow": "endpoint-sets",
    "impact": "audit-to-block",
    "baseline": "baseline",
    "coverage": "runs",
    "runs": "runs",
    "insights": "runs",
    "network-events": "runs",
    "detections": "detections",
    "settings:keys": "first-runner",
    "settings:regenerate-key": "first-runner",
    "settings:key-clusters": "arc",
    "settings:management-keys": "api",
    "settings:revoke-key": "api",
    "settings:inventory": "scopes",
    "settings": "roles",
    "runners-settings": "first-runner",
    "runners-settings:cargowall": "other-enforcers",
    "runners-settings:blocklist": "global-blocklist",
    "integrations": "events",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A topic that matches a search, with the text around the first match."""

    topic: Topic
    excerpt: str


def of_page(request: HttpRequest) -> Topic | None:
    """The topic of the page that is being shown, or None."""
    match = request.resolver_match
    if match is None:
        return None
    name = TOPIC_OF_PAGE.get(match.view_name) or TOPIC_OF_PAGE.get(match.namespace)
    return TOPICS[name] if name else None


def search(query: str, context: dict[str, Any], request: HttpRequest) -> Iterator[Found]:
    """Yield the topics whose title or text contains the query, in any case, titles first."""
    texts = {topic: _text(topic, context, request) for topic in TOPICS.values()}
    wanted = query.casefold()
    for topic in sorted(texts, key=lambda topic: wanted not in topic.title.casefold()):
        at = texts[topic].casefold().find(wanted)
        if at >= 0 or wanted in topic.title.casefold():
            yield Found(topic, _excerpt(texts[topic], max(at, 0)))


def _text(topic: Topic, context: dict[str, Any], request: HttpRequest) -> str:
    return re.sub(r"\s+", " ", unescape(strip_tags(render_to_string(topic.template, context, request)))).strip()


def _excerpt(text: str, at: int) -> str:
    start = text.rfind(" ", 0, max(at - EXCERPT // 3, 0)) + 1
    shown = shorten(text[start:], EXCERPT, placeholder="…")
    return f"…{shown}" if start else shown


def facts(organization: Organization) -> dict[str, Any]:
    """What the code and the settings know, for the texts of topics."""
    return {
        "organization": organization,
        "web_address": settings.PUBLIC_URL,
        "fetch_address": settings.RUNNER_URL,
        # An address that no policy can list, such as 127.0.0.1, is private and needs no entry.
        "store_endpoints": [endpoint for endpoint in compiler.store_endpoints() if not unlistable(endpoint)],
        "precedence": PRECEDENCE,
        "enforcers": ENFORCERS.values(),
        "keys": values.KNOWN_KEYS,
        "switches": values.SWITCHES,
        "lockdown_detections": values.DETECTION_TYPES,
        "detections": TITLES,
        "examples": [(text, *_result(text)) for text in EXAMPLES],
        "limits": _limits(),
        "built_in": endpoint_matcher.BUILT_IN,
        "roles": [(role.label, ADDED[role].values()) for role in Role],
        "history_events": event_types.EVENT_TYPES.values(),
        "events": event_catalog.EVENTS,
        "routes": openapi.routes(),
        "enforcement": Enforcement,
        "stable_runs": settings.BASELINE_STABLE_RUNS,
        "event_days": settings.EVENT_RETENTION_DAYS,
        "run_days": settings.JOB_RUN_RETENTION_DAYS,
    }


def _result(text: str) -> tuple[str, str]:
    """The endpoint that an entry becomes (empty if it is refused), and why it is refused."""
    endpoint, problems = clean(Entry(text, 1, 1))
    refusal = unlistable(text)
    hint = problems[0].hint if problems and not endpoint else ""
    return ("" if refusal else endpoint or ""), f"{refusal} {hint}".strip()


def _limits() -> dict[str, object]:
    size = yaml_reader.OF_A_POLICY
    return {
        "kilobytes": size.bytes // 1024,
        "lines": size.lines,
        "endpoints": endpoint_parser.MAX_ENTRIES,
        "sets": endpoint_sets.MAX_SETS,
        "host": endpoint_parser.MAX_HOST,
        "port": endpoint_parser.MAX_PORT,
        "name": name_validation.MAX_NAME,
        "description": name_validation.MAX_DESCRIPTION,
        "break_glass": (break_glass.LEAST_HOURS, break_glass.MOST_HOURS),
        "exception_days": exceptions.MOST_DAYS,
        "exceptions": exceptions.MOST_OPEN,
        "canaries": staging.MAX_CANARIES,
    }
