"""Links that several pages of traffic have in common."""

from __future__ import annotations

from urllib.parse import urlencode

from policystore.traffic import queries
from policystore.web.pagination import Page


def event_tabs(tab: str) -> list[dict[str, object]]:
    """The tabs that narrow network events."""
    return [
        {"label": label, "query": query(tab=value), "active": value == tab}
        for value, (label, _) in queries.EVENT_TABS.items()
    ]


def query(**values: str) -> str:
    """A query string; what is empty is left out."""
    return "?" + urlencode({name: value for name, value in values.items() if value})


def pager(page: Page, **values: str) -> dict[str, str]:  # type: ignore[type-arg]
    """Where the first and the next page are, for the pager's template."""
    return {
        "first_query": "" if page.is_first else query(**values),
        "next_query": query(**values, before=page.next_cursor) if page.next_cursor else "",
    }
