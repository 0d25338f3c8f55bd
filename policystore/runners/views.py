"""The runner protocol over HTTP."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache

from policystore.runners import fetch
from policystore.runners.replies import method_not_allowed


@login_not_required
@never_cache
def workflow_policy(request: HttpRequest, owner: str, repository: str) -> HttpResponse:
    """The policy fetch, as Django serves it; `front.FetchFirst` answers it before Django in production."""
    if request.method not in ("GET", "HEAD"):
        return method_not_allowed("GET", "HEAD").to_response()
    asked = fetch.FetchRequest.read(
        owner, repository, request.META.get("QUERY_STRING", ""), request.headers.get("Authorization", "")
    )
    return fetch.answer(asked).to_response()
