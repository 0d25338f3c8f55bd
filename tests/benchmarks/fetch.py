"""The complete policy fetch in the fetch process, compared with bare gunicorn and one prepared SELECT."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import figures, servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.load import Load, Measured, measure
from tests.benchmarks.scale import Scale
from tests.benchmarks.yardsticks import BODY
from tests.github_tokens import Issuer, token

# All servers get the same request; the last parameter is for the yardsticks alone.
PATH = (
    "/v1/github/octo-org/repository-%(repository)d/actions/policies/workflow-policy"
    "?workflow=ci-%(workflow)d.yml&run_id=%(number)s&correlationId=%(number)s&row=row-%(scope)d"
)
CARGOWALL_PATH = "/api/cargowall/v1/action/policy?job_key=%(number)s"
RECORDED_AFTER_SECONDS = 1.0
# The least rate of the fetch : that of one SELECT, by database and by whether connections are kept.
LEAST_RATIOS = {
    ("PostgreSQL", "fresh connections"): 0.80,
    ("PostgreSQL", "keep-alive"): 1.0,
    ("SQLite", "fresh connections"): 0.80,
    ("SQLite", "keep-alive"): 0.80,
}
# The most p99 of the fetch : that of one SELECT.
MOST_TAIL_RATIOS = {"PostgreSQL": 1.7}
EXPECTED = '"policy_name":"policy-%(policy)d"'


def fetching(scale: Scale, server: servers.Server, key: str, expected: str = EXPECTED, **more: object) -> Load:
    """The load of runners that ask for their policy, each scope as likely as any other."""
    chosen = {"port": server.port, "path": PATH, "expected": expected, "clients": scale.clients}
    known = {"scopes": scale.scopes, "policies": scale.policies, "seconds": scale.seconds, "warm_up": scale.warm_up}
    headers = {"Authorization": f"vm-api-key {key}", "User-Agent": "actions/http-client"}
    return Load(**{**chosen, **known, "headers": headers, **more})  # type: ignore[arg-type]


def measures(loads: dict[str, Load]) -> dict[str, Callable[[int], Measured]]:
    """Each load as what `interleaved` calls, every run with numbers of its own."""

    def of(name: str, one: Load) -> Callable[[int], Measured]:
        kept = "-kept" if one.keep_alive else ""
        return lambda run: measure(Load(**{**one.__dict__, "name": f"{name}{kept}-{run}"}))

    return {name: of(name, one) for name, one in loads.items()}


def recorded(
    measured: Callable[[int], Measured], settings: dict[str, str], shares: list[float]
) -> Callable[[int], Measured]:
    """The same, and how many of the fetches that were answered are recorded a moment later, added to `shares`."""

    def run(number: int) -> Measured:
        before = stores.recorded_fetches(settings)
        found = measured(number)
        time.sleep(RECORDED_AFTER_SECONDS)
        shares.append((stores.recorded_fetches(settings) - before) / found.acknowledged)
        return found

    return run


def on_postgresql(scale: Scale) -> Iterator[Figure]:
    """Fetch on PostgreSQL against (b), (c) and nginx, on fresh connections and with keep-alive."""
    with ExitStack() as stack:
        database = stack.enter_context(servers.postgresql())
        settings = stack.enter_context(stores.on_postgresql(database))
        seeded = stores.seed(settings, "scopes", policies=scale.policies, scopes=scale.scopes)
        rows = {"YARDSTICK_DATABASE": stores.yardstick_on_postgresql(database, scale.scopes)}
        selecting = stack.enter_context(
            servers.yardstick("postgresql", workers=scale.workers, ready="/?row=row-0", environment=rows)
        )
        constant = stack.enter_context(servers.yardstick("constant", workers=scale.workers))
        store = stack.enter_context(servers.fetch_process(settings, workers=scale.workers))
        loads = {
            "fetch": fetching(scale, store, seeded["key"]),
            "select": fetching(scale, selecting, seeded["key"], BODY.decode()),
            "constant": fetching(scale, constant, seeded["key"], BODY.decode()),
        }
        if servers.has_nginx():
            server = stack.enter_context(servers.nginx(BODY, workers=scale.workers))
            loads["nginx"] = fetching(scale, server, seeded["key"], BODY.decode(), path="/answer.json")
        yield from _figures(scale, loads, settings, "PostgreSQL")


def of_cargowall(scale: Scale) -> Iterator[Figure]:
    """A fetch of CargoWall's action : one of Harden-Runner's, for the same workflow on PostgreSQL."""
    with ExitStack() as stack:
        issuer = stack.enter_context(closing(Issuer()))
        database = stack.enter_context(servers.postgresql())
        settings = {**stack.enter_context(stores.on_postgresql(database)), "OIDC_ISSUERS": issuer.address}
        # Production takes no issuer without TLS.
        settings["POLICYSTORE_MODE"] = "local"
        seeded = stores.seed(settings, "scopes", policies=1, scopes=1)
        store = stack.enter_context(servers.fetch_process(settings, workers=scale.workers))
        bearer = token(
            issuer,
            aud="codecargo",
            exp=int(time.time()) + 3600,
            repository="octo-org/repository-0",
            workflow_ref="octo-org/repository-0/.github/workflows/ci-0.yml@refs/heads/main",
        )
        one = replace(fetching(scale, store, seeded["key"]), scopes=1, policies=1)
        other = replace(
            one,
            path=CARGOWALL_PATH,
            expected='"mode": "CARGO_WALL_MODE_',
            headers={"Authorization": f"Bearer {bearer}"},
        )
        for keep_alive in (False, True):
            how = "keep-alive" if keep_alive else "fresh connections"
            loads = {"cargowall": replace(other, keep_alive=keep_alive), "fetch": replace(one, keep_alive=keep_alive)}
            runs = figures.interleaved(scale.runs, measures(loads))
            name = f"CargoWall's fetch : Harden-Runner's, {how}"
            yield figures.ratio(name, runs, "cargowall", "fetch", least=1 / 1.2)


def on_sqlite(scale: Scale) -> Iterator[Figure]:
    """Fetch on SQLite against bare gunicorn with one SELECT on SQLite."""
    with ExitStack() as stack:
        settings = stack.enter_context(stores.on_sqlite())
        seeded = stores.seed(settings, "scopes", policies=scale.policies, scopes=scale.scopes)
        rows = {"YARDSTICK_DATABASE": stack.enter_context(_yardstick_file(scale))}
        selecting = stack.enter_context(
            servers.yardstick("sqlite", workers=scale.workers, ready="/?row=row-0", environment=rows)
        )
        store = stack.enter_context(servers.fetch_process(settings, workers=scale.workers))
        loads = {
            "fetch": fetching(scale, store, seeded["key"]),
            "select": fetching(scale, selecting, seeded["key"], BODY.decode()),
        }
        yield from _figures(scale, loads, settings, "SQLite")


@contextmanager
def _yardstick_file(scale: Scale) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="policystore-yardstick-") as folder:
        yield stores.yardstick_on_sqlite(Path(folder), scale.scopes)


def _figures(scale: Scale, loads: dict[str, Load], settings: dict[str, str], database: str) -> Iterator[Figure]:
    for keep_alive in (False, True):
        how = "keep-alive" if keep_alive else "fresh connections"
        chosen = {name: Load(**{**one.__dict__, "keep_alive": keep_alive}) for name, one in loads.items()}
        shares: list[float] = []
        measured = measures(chosen)
        measured["fetch"] = recorded(measured["fetch"], settings, shares)
        runs = figures.interleaved(scale.runs, measured)
        least = LEAST_RATIOS[database, how]
        yield figures.ratio(f"Fetch on {database} : (c) one SELECT, {how}", runs, "fetch", "select", least=least)
        tails = [run["fetch"].p99 / run["select"].p99 for run in runs]
        yield figures.median(
            f"p99 of the fetch on {database} : p99 of (c) one SELECT, {how}",
            tails,
            most=MOST_TAIL_RATIOS.get(database),
            note=f"{_tails(runs, 'fetch')} : {_tails(runs, 'select')}",
        )
        for other, label in (("constant", "(b) constant answer"), ("nginx", "nginx, static file")):
            if other in loads:
                yield figures.ratio(f"Fetch on {database} : {label}, {how}", runs, "fetch", other)
        # The last of each run may be recorded without having been answered.
        yield figures.median(
            f"Fetches recorded a second later, of those answered on {database}, {how}", shares, least=1
        )


def _tails(runs: list[dict[str, Measured]], name: str) -> str:
    tails = [1000 * run[name].p99 for run in runs]
    return f"{min(tails):.1f} to {max(tails):.1f} ms"
