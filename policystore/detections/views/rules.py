"""Suppression rules: listed, previewed against past detections, made and removed."""

from __future__ import annotations

from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from policystore.accounts import access
from policystore.detections.actions import rules as actions
from policystore.detections.forms import RuleForm
from policystore.detections.models import SuppressionRule

SHOWN = 20
FIELDS = ("detection_id", "scope_key", "destination", "process")


@require_GET
def rules(request: HttpRequest, owner: str) -> HttpResponse:
    """The organization's rules, newest first."""
    organization = access.get_organization(request, owner, "detections.view_detection")
    rows = SuppressionRule.objects.filter(organization=organization).annotate(suppressed=Count("detections"))
    return render(request, "detections/rules.html", {"organization": organization, "rules": rows})


@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, owner: str) -> HttpResponse:
    """Fill in a rule, preview what it would have suppressed, then save it."""
    organization = access.get_organization(request, owner, "detections.change_suppressionrule")
    if request.method != "POST":
        initial = {name: request.GET.get(name, "")[:1100] for name in FIELDS}
        return render(
            request, "detections/new_rule.html", {"organization": organization, "form": RuleForm(initial=initial)}
        )
    form = RuleForm(request.POST)
    context: dict[str, object] = {"organization": organization, "form": form}
    if form.is_valid():
        try:
            rule = actions.draft(organization=organization, **form.cleaned_data)
        except actions.RuleRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            if request.POST.get("action") == "save":
                actions.create(rule=rule, by=access.actor(request))
                messages.success(request, "The rule was saved; what it fits is suppressed from now on.")
                return redirect("detections:rules", organization.key)
            fitting = actions.preview(rule)
            return render(
                request,
                "detections/new_rule.html",
                {**context, "fitting": fitting[:SHOWN], "count": len(fitting), "most": actions.PREVIEWED},
            )
    return render(request, "detections/new_rule.html", context, status=422)


@require_POST
def remove(request: HttpRequest, owner: str, rule_id: int) -> HttpResponse:
    """Remove a rule; what it suppressed becomes new again."""
    organization = access.get_organization(request, owner, "detections.change_suppressionrule")
    rule = get_object_or_404(SuppressionRule, organization=organization, pk=rule_id)
    actions.remove(rule=rule, by=access.actor(request))
    messages.success(request, "The rule was removed; what it suppressed is new again.")
    return redirect("detections:rules", organization.key)
