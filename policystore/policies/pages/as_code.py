"""A policy that is managed as code: where it comes from, what drifted, and managing it by its pages again."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from policystore.accounts import access
from policystore.policies.as_code import apply as managing
from policystore.policies.as_code import plan as as_code
from policystore.policies.errors import PolicyGone
from policystore.policies.pages.get_or_404 import get_policy


@require_http_methods(["GET", "POST"])
def managed(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """The drift from the code; POST releases the policy from it."""
    permission = "policies.change_policy" if request.method == "POST" else "policies.view_policy"
    policy = get_policy(request, owner, policy_id, permission)
    if request.method == "POST":
        try:
            managing.release(policy=policy, by=access.actor(request))
            messages.success(request, f"{policy.name} is no longer managed as code.")
        except PolicyGone as gone:
            messages.info(request, str(gone))
            return redirect("policies:list", policy.organization.key)
        return redirect("policies:view", policy.organization.key, policy.pk)
    drift = as_code.drift_of(policy)
    if drift is None:
        raise Http404("This policy is not managed as code.")
    context = {"organization": policy.organization, "policy": policy, "drift": drift}
    return render(request, "policies/managed.html", context)
