"""Quick search: the results for its dialog, and a page of its own for browsers without JavaScript."""

from __future__ import annotations

from functools import partial

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.policies.pages.get_or_404 import search_text
from policystore.quick_search import queries
from policystore.web.json_api import storable
from policystore.web.pagination import render_list


@require_GET
@vary_on_headers("HX-Request")
def search(request: HttpRequest, owner: str) -> HttpResponse:
    """The results of each kind that the person may see."""
    organization = access.get_organization(request, owner, "policies.view_policy")
    text = storable(search_text(request.GET, "q"))
    may = partial(request.user.has_perm, obj=organization)
    groups = queries.search(organization, text, may=may)
    context = {
        "organization": organization,
        "search": text,
        "groups": groups,
        "count": sum(len(group.results) for group in groups),
        "is_too_short": len(text) < queries.MIN_CHARACTERS,
    }
    return render_list(request, "quick_search/search.html", "quick-search-results", context)
