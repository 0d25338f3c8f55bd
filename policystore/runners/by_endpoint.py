"""Network events and detections of an endpoint, and both grouped by endpoint."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Max, QuerySet, Value
from django.db.models.functions import Concat

from policystore.web.pagination import Order, Page, beyond_limit, parse_row_id

PAGE_SIZE = 50
_LATEST_FIRST = Order(("last",), (int,), descending=True)


def group_page(
    rows: QuerySet[Any], *columns: str, among: QuerySet[Any], time: str, before: str = ""
) -> Page[dict[str, Any]]:
    """A page of groups of rows with the same endpoint and `columns`, those with the newest row first.

    Counts rows among the newest ROWS_LOOKED_THROUGH of `among`, which an index must find. Each group has its `host`,
    `port` and `columns`, an `endpoint` for `of_endpoint`, the number of `rows` and `workflows`, and `last_at`: the
    latest value of the column `time`.
    """
    # Not a subquery: PostgreSQL estimates that a third of the table is newer than a number that it does not know.
    limit = beyond_limit(among)
    groups = (
        (rows if limit is None else rows.filter(pk__gt=limit))
        .order_by()
        .values("host", "port", *columns)
        .annotate(
            rows=Count("pk"),
            workflows=Count(Concat("job_run__repository", Value("/"), "job_run__workflow"), distinct=True),
            last=Max("pk"),
            last_at=Max(time),
        )
    )
    page = _LATEST_FIRST.page(groups, after=before, size=PAGE_SIZE)
    for group in page.rows:
        group["endpoint"] = f"{group['host']}:{'' if group['port'] is None else group['port']}"
    return page


def of_endpoint(rows: QuerySet[Any], endpoint: str) -> QuerySet[Any]:
    """The rows of `host:port`; without a host or port, those that have none."""
    host, _, port = endpoint.rpartition(":")
    return rows.filter(host=host, port=parse_row_id(port))
