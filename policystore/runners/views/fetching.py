"""The policy fetch, as Django serves it; `front.FetchFirst` answers it before Django in production."""

from __future__ import annotations

from django.http import HttpRequest

from policystore.runners import fetch
from policystore.runners.http import route
from policystore.runners.responses import Reply


@route("GET")
def workflow_policy(request: HttpRequest, owner: str, repository: str) -> Reply:
    """The most specific policy for a job, or 404."""
    return fetch.answer(fetch.FetchRequest.read(owner, repository, request.META))
