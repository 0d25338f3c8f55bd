"""Template context of every page: active break glass."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from policystore.policies import break_glass


def broken_glass(request: HttpRequest) -> dict[str, Any]:
    """The context processor: `broken_glass` is the list for the page's organization, asked for when it is used."""
    return {"broken_glass": SimpleLazyObject(partial(_active, request))}


def _active(request: HttpRequest) -> list[Any]:
    organization = getattr(request, "organization", None)
    if organization is None or not request.user.has_perm("policies.view_policy", organization):
        return []
    return list(break_glass.active(organization))
