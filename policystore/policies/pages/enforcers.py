"""The page of a policy in the form of each enforcer, and how the enforcer differs from the policy."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.text import slugify
from django.views.decorators.http import require_GET

from policystore.enforcers.policy import EffectivePolicy
from policystore.enforcers.registry import ENFORCERS
from policystore.policies.pages.get_or_404 import get_policy
from policystore.policy_language.document import read_reply

CALLS_SHOWN = 20


@require_GET
def enforcers(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """A policy in the form of the enforcer that is chosen; `format=text` downloads it."""
    policy = get_policy(request, owner, policy_id, "policies.view_policy")
    chosen = ENFORCERS.get(request.GET.get("enforcer", "")) or next(iter(ENFORCERS.values()))
    form = chosen.compiled(EffectivePolicy.from_reply(read_reply(policy.served_reply)))
    if request.GET.get("format") == "text":
        name = f"{slugify(policy.name) or 'policy'}-{chosen.file_name}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return HttpResponse(form.text, content_type="text/plain; charset=utf-8", headers=headers)
    context = {
        "organization": policy.organization,
        "policy": policy,
        "enforcers": ENFORCERS.values(),
        "chosen": chosen,
        "form": form,
        "groups": [
            {"group": group, "calls": group.calls[:CALLS_SHOWN], "more": len(group.calls) - CALLS_SHOWN}
            for group in form.grouped()
        ],
    }
    return render(request, "policies/enforcers.html", context)
