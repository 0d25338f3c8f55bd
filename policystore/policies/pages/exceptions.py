"""The exceptions of a policy: add one, and end one early. Its page lists them."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from policystore.accounts import access
from policystore.policies.approvals.commands import Change
from policystore.policies.errors import InvalidException
from policystore.policies.exceptions import AddException
from policystore.policies.exceptions import end as end_exception
from policystore.policies.models import Policy, PolicyException
from policystore.policies.pages.approval_middleware import request_approval
from policystore.policies.pages.forms import ExceptionForm
from policystore.policies.pages.get_or_404 import get_policy
from policystore.policies.pages.reading import policy_page


@require_POST
def add(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Allow one more endpoint until a time."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    form = ExceptionForm(request.POST)
    if form.is_valid():
        try:
            added = AddException(policy=policy, **form.cleaned_data).attempt(by=access.actor(request))
        except InvalidException as refusal:
            form.add_error(refusal.field, str(refusal))
        else:
            return request_approval(request, added) if isinstance(added, Change) else _added(request, added)
    return policy_page(request, policy, form, status=422)


@require_POST
def end(request: HttpRequest, owner: str, policy_id: int, exception_id: int) -> HttpResponse:
    """End now."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    found = PolicyException.objects.filter(pk=exception_id, policy=policy).first()
    if found is None:
        raise Http404("This policy has no such exception.")
    found.policy = policy
    end_exception(exception=found, by=access.actor(request))
    messages.success(request, f"Jobs that start from now on get {policy.name} without the exception {found.endpoint}.")
    return _back(policy)


def _added(request: HttpRequest, added: PolicyException) -> HttpResponse:
    until = f"{added.expires_at:%Y-%m-%d %H:%M} UTC"
    messages.success(request, f"Jobs that start from now on may reach {added.endpoint}, until {until}.")
    return _back(added.policy)


def _back(policy: Policy) -> HttpResponse:
    return redirect("policies:view", policy.organization.key, policy.pk)
