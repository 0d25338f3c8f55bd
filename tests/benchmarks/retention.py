"""Removing old network events, beside adding new ones."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks import servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.scale import Scale


def on_both(scale: Scale) -> Iterator[Figure]:
    """Rows removed a second from 3 million old events : rows added a second by one process, on each database."""
    with servers.postgresql() as server, stores.on_postgresql(server) as settings:
        yield _ratio(scale, "PostgreSQL", settings)
    with stores.on_sqlite() as settings:
        yield _ratio(scale, "SQLite", settings)


def _ratio(scale: Scale, database: str, settings: dict[str, str]) -> Figure:
    rates = stores.seed(settings, "retention", events=scale.old_events, seconds=scale.seconds)
    return Figure(
        f"Retention of {scale.old_events:,} events on {database}: removed : added",
        rates["removed"] / rates["added"],
        least=1.0,
        note=f"{rates['removed']:,.0f}/s : {rates['added']:,.0f}/s",
    )
