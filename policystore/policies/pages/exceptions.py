"""The exceptions of a policy: add one, and end one early. Its page lists them."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from policystore.accounts import access
from policystore.policies.errors import InvalidException
from policystore.policies.exceptions import actions
from policystore.policies.models import Policy, PolicyException
from policystore.policies.pages.forms import ExceptionForm
from policystore.policies.pages.get_or_404 import get_policy
from policystore.policies.pages.reading import policy_page


@require_POST
def add(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Allow one more endpoint until a moment."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    form = ExceptionForm(request.POST)
    if form.is_valid() and _add(request, policy, form):
        return _back(policy)
    return policy_page(request, policy, form, status=422)


@require_POST
def end(request: HttpRequest, owner: str, policy_id: int, exception_id: int) -> HttpResponse:
    """End now."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    found = PolicyException.objects.filter(pk=exception_id, policy=policy).first()
    if found is None:
        raise Http404("This policy has no such exception.")
    found.policy = policy
    actions.end(exception=found, by=access.actor(request))
    messages.success(request, f"Jobs that start from now on get {policy.name} without the exception {found.endpoint}.")
    return _back(policy)


def _add(request: HttpRequest, policy: Policy, form: ExceptionForm) -> bool:
    try:
        added = actions.add(policy=policy, by=access.actor(request), **form.cleaned_data)
    except InvalidException as refusal:
        form.add_error(refusal.field, str(refusal))
        return False
    told = f"Jobs that start from now on may reach {added.endpoint}, until {added.expires_at:%Y-%m-%d %H:%M} UTC."
    messages.success(request, told)
    return True


def _back(policy: Policy) -> HttpResponse:
    return redirect("policies:view", policy.organization.key, policy.pk)
