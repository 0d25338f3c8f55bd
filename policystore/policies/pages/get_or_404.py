"""Gets what a policy page is about, or refuses: the first line of each view."""

from __future__ import annotations

from collections.abc import Mapping

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin
from django_htmx.http import HttpResponseClientRedirect

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies.core import versions
from policystore.policies.core.versions import Subject
from policystore.policies.errors import PolicyGone
from policystore.policies.models import Policy

MAX_SEARCH = 200


def get_policy(request: HttpRequest, owner: str, policy_id: int, permission: str) -> Policy:
    """A policy of an organization in which the person has the permission. Raises Http404 or PermissionDenied;
    PolicyGone if htmx requests a part of a page whose policy was deleted since."""
    organization = access.get_organization(request, owner, permission)
    try:
        return policy_of(organization, policy_id)
    except Http404:
        subject = versions.subject(organization, policy_id) if "HX-Request" in request.headers else None
        if subject is None:
            raise
        raise PolicyGone(f"The policy {subject.name} was deleted in the meantime.") from None


def get_history_subject(request: HttpRequest, owner: str, policy_id: int, permission: str) -> Subject:
    """A policy as its history knows it, also one that was deleted. Raises Http404 or PermissionDenied."""
    organization = access.get_organization(request, owner, permission)
    subject = versions.subject(organization, policy_id)
    if subject is None:
        raise Http404("This organization has never had such a policy.")
    return subject


def policy_of(organization: Organization, policy_id: int) -> Policy:
    """The organization's policy with this id. Raises Http404."""
    return get_object_or_404(Policy.objects.select_related("organization"), pk=policy_id, organization=organization)


def search_text(values: Mapping[str, str], name: str) -> str:
    """A text of a query string or form, cut to what a search can use."""
    return values.get(name, "").replace("\0", "").strip()[:MAX_SEARCH]


class PolicyGoneMiddleware(MiddlewareMixin):
    """Redirects from the page of a policy that was deleted meanwhile to the list, which says what happened."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Redirect to the list, which everyone who may open the policy may see."""
        organization = getattr(request, "organization", None)
        if not isinstance(exception, PolicyGone) or organization is None:
            return None
        messages.error(request, str(exception))
        if "HX-Request" in request.headers:
            # The page, and not the part of it that htmx asked for.
            return HttpResponseClientRedirect(reverse("policies:list", args=[organization.key]))
        return redirect("policies:list", organization.key)
