"""What a policy's staged version would have blocked: a fragment of its page, or a page without JavaScript."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.policies.core import queries
from policystore.policies.pages.get_or_404 import get_policy
from policystore.policy_language.endpoint_matcher import Verdict
from policystore.traffic import charts, staging_results
from policystore.traffic.verdicts import allow_list_of


@require_GET
@vary_on_headers("HX-Request")
def counts(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """A chart by day, its numbers, and the endpoints that are not on the staged list."""
    policy = get_policy(request, owner, policy_id, "policies.view_policy")
    staged = queries.staged_of(policy)
    if staged is None:
        raise Http404("This policy has no staged version.")
    days = staging_results.by_day(staged)
    live, draft = (allow_list_of(reply) for reply in (policy.served_reply, staged.reply))
    endpoints = [
        (row, draft.verdict_of(row.endpoint), live.verdict_of(row.endpoint)) for row in staging_results.off_list(staged)
    ]
    context = {
        "organization": policy.organization,
        "policy": policy,
        "staged": staged,
        "days": days,
        "runs": sum(day.runs for day in days),
        "would_block": sum(day.would_block for day in days),
        "canaries": sum(day.canaries for day in days),
        "blocked": sum(day.blocked for day in days),
        "chart": charts.stacked([_column(day) for day in days]),
        "endpoints": endpoints,
        "is_any_undetermined": any(verdict is Verdict.UNDETERMINED for _, verdict, _ in endpoints),
    }
    name = "traffic/staged_counts.html#counts" if request.htmx else "traffic/staged_counts.html"  # type: ignore[attr-defined]
    return render(request, name, context)


def _column(day: staging_results.Day) -> charts.Column:
    passed = day.runs - day.would_block + day.canaries - day.blocked
    parts = (
        ("allowed", passed, f"{day.day}: {passed:,} runs within the staged list"),
        ("would", day.would_block, f"{day.day}: {day.would_block:,} runs would have been blocked"),
        ("blocked", day.blocked, f"{day.day}: {day.blocked:,} canary runs were blocked"),
    )
    return charts.Column(f"{day.day:%b} {day.day.day}", parts)
