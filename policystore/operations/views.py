"""What load balancers and monitoring ask: whether the process lives, whether the store works, and its counts."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from policystore.operations import readiness
from policystore.operations.store_metrics import StoreState
from policystore.web import metrics


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as this process answers; asks nobody else."""
    return JsonResponse({"status": "ok"})


@login_not_required
@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 while all of the store works, else 503 with what is wrong."""
    checked = readiness.look()
    ready = not any(check.finding.is_problem for check in checked)
    told = [
        {"name": check.name, "ok": not check.finding.is_problem, "message": check.finding.message} for check in checked
    ]
    return JsonResponse({"status": "ready" if ready else "not ready", "checks": told}, status=200 if ready else 503)


@login_not_required
@never_cache
@require_safe
def prometheus(request: HttpRequest) -> HttpResponse:
    """The counts, for who has METRICS_TOKEN; where none is set, for nobody."""
    if not settings.METRICS_TOKEN:
        return _refused(404, "Set METRICS_TOKEN to read metrics here.")
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(
        token.strip().encode(), settings.METRICS_TOKEN.encode()
    ):
        return _refused(401, "Send METRICS_TOKEN as `Authorization: Bearer TOKEN`.")
    registry = metrics.registry()
    registry.register(StoreState())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _refused(status: int, message: str) -> HttpResponse:
    response = HttpResponse(f"{message}\n", status=status, content_type="text/plain; charset=utf-8")
    if status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response
