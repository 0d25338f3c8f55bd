"""The help pages, and what every page shows: the link to its help topic, and in the first hour the next step."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.guide import topics
from policystore.guide.first_steps import FirstSteps
from policystore.guide.topics import Topic
from policystore.inventory.models import Organization

# Every role has it.
PERMISSION = "policies.view_policy"


class Guide:
    """Read by templates as `guide`; asks the database only for what a template uses."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @property
    def topic(self) -> Topic | None:
        """The help topic of the page, or None."""
        return topics.of_page(self._request)

    @cached_property
    def first_steps(self) -> FirstSteps | None:
        """The first steps of the page's organization, or None if the page has none."""
        organization: Organization | None = getattr(self._request, "organization", None)
        return FirstSteps(self._request, organization) if organization else None


def guide(request: HttpRequest) -> dict[str, Any]:
    """The context processor."""
    return {"guide": Guide(request)}


@require_GET
def own_help(request: HttpRequest, topic: str = "") -> HttpResponse:
    """The help pages of the person's first organization, so that a link to a topic works without naming one."""
    organization = access.first_organization(request)
    if organization is None:
        return render(request, "policies/no_organization.html")
    return redirect("help:topic", organization.key, topic) if topic else redirect("help:contents", organization.key)


@require_GET
def contents(request: HttpRequest, owner: str) -> HttpResponse:
    """All topics, or those that contain `q`."""
    organization = access.get_organization(request, owner, PERMISSION)
    query = request.GET.get("q", "").strip()[:100]
    context = topics.facts(organization)
    found = list(topics.search(query, context, request)) if query else []
    page = {"organization": organization, "sections": topics.SECTIONS, "query": query, "found": found}
    return render(request, "help/contents.html", page)


@require_GET
def help_topic(request: HttpRequest, owner: str, topic: str) -> HttpResponse:
    """One topic, with the addresses of this store."""
    organization = access.get_organization(request, owner, PERMISSION)
    chosen = topics.TOPICS.get(topic)
    if chosen is None:
        raise Http404(f"“{topic[:60]}” is not a help topic.")
    context = {"topic": chosen, "sections": topics.SECTIONS, **topics.facts(organization)}
    return render(request, "help/topic.html", context)
