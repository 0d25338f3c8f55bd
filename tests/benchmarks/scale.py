"""How much is measured: in full, or so little that it only shows that everything runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The sizes that all benchmarks go by."""

    runs: int = 5
    seconds: float = 5
    warm_up: float = 1
    clients: int = 16
    workers: int = 2
    scopes: int = 1_000_000
    policies: int = 10_000
    saves: int = 1_000
    mixed: int = 100_000
    many_policies: int = 100_000
    page_warm_up: int = 3
    page_requests: int = 15
    page_events: int = 10_000
    page_versions: int = 1_000
    page_runs: int = 100_000
    page_repositories: int = 100_000
    observed_calls: int = 1_000_000
    old_events: int = 3_000_000


TINY = Scale(
    runs=1,
    seconds=0.5,
    warm_up=0.1,
    clients=4,
    workers=1,
    scopes=1_000,
    policies=100,
    saves=10,
    mixed=1_000,
    many_policies=700,
    page_warm_up=0,
    page_requests=1,
    page_events=300,
    page_versions=20,
    page_runs=500,
    page_repositories=300,
    observed_calls=2_000,
    old_events=30_000,
)
