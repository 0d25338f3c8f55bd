"""Fills a store's database with as much as a figure needs, by statements that both databases understand.

`python -m tests.benchmarks.seeds NAME` does so in the store that the environment names, with the arguments that its
standard input holds as JSON, and writes what the benchmark must know as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django
from django.db import connection
from django.utils import timezone

from tests.benchmarks import page_seeds, policy_seeds

# As long as what bare gunicorn answers: about 600 bytes.
ENDPOINTS = 11

NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {end})"
POLICIES = """
INSERT INTO policies_policy (organization_id, name, name_key, description, text, version, reply, egress_policy,
    endpoint_count, attachment_count, risk_count, search_text, created_at, created_by, changed_at, changed_by)
{numbers} SELECT organization_id, 'policy-' || n, 'policy-' || n, description, text, version,
    replace(reply, 'policy-0', 'policy-' || n), egress_policy, endpoint_count, {attached}, 0,
    replace(search_text, 'policy-0', 'policy-' || n), created_at, created_by, changed_at, changed_by
FROM numbers, policies_policy WHERE name = 'policy-0'
"""
REPOSITORIES = """
INSERT INTO inventory_repository (organization_id, name, key, created_at)
{numbers} SELECT o.id, 'repository-' || n, 'repository-' || n, o.created_at
FROM numbers, inventory_organization o WHERE o.key = 'octo-org'
"""
WORKFLOWS = """
INSERT INTO inventory_workflow (repository_id, file_name, created_at)
{numbers} SELECT r.id, 'ci-' || n || '.yml', r.created_at FROM numbers, inventory_repository r
WHERE CAST(substr(r.key, 12) AS integer) >= {least}
"""
# Other organizations and their keys: as few as one would be read as a whole, since nothing else is as fast.
OTHERS = """
INSERT INTO inventory_organization (login, key, created_at)
{numbers} SELECT 'other-' || n, 'other-' || n, created_at FROM numbers, inventory_organization WHERE key = 'octo-org'
"""
OTHER_KEYS = """
INSERT INTO accounts_apikey (organization_id, kind, slot, name, hint, digest, created_at, created_by, revoked_by)
SELECT id, 'vm', 'primary', '', '', key, created_at, '', '' FROM inventory_organization WHERE key LIKE 'other-%'
"""
# Each repository holds nine policies on workflows, and one for what else it has.
ATTACHMENTS = """
INSERT INTO policies_attachment (policy_id, organization_id, scope_key, scope_type, attached_at, attached_by)
{numbers}, named AS (
    SELECT n % 10 AS workflow, n % {policies} AS policy, 'octo-org/repository-' || (n / 10) AS repository FROM numbers
)
SELECT p.id, p.organization_id,
    CASE WHEN workflow = 0 THEN 'repository:' || repository
         ELSE 'workflow:' || repository || '/ci-' || workflow || '.yml' END,
    CASE WHEN workflow = 0 THEN 'repository' ELSE 'workflow' END, p.created_at, p.created_by
FROM named JOIN policies_policy p ON p.name = 'policy-' || named.policy
"""


MOMENTS = {"postgresql": "timestamptz", "sqlite": "text"}
JOB_RUNS = """
INSERT INTO runners_jobrun (organization_id, repository, workflow, run_id, correlation_id, job, cluster, policy_id,
    policy_name, policy_version, scope_key, egress_policy, break_glass, first_seen_at, fetched_at, monitored_at,
    verified_by)
{numbers} SELECT p.organization_id, 'repository-0', 'ci-1.yml', CAST(n AS varchar(9)), 'job-' || n,
    'build-' || (n / 10), '', p.id, p.name, p.version, 'repository:octo-org/repository-0', p.egress_policy, false,
    at, at, at, 'key'
FROM numbers, (SELECT CAST(%s AS {moment}) AS at) moments, policies_policy p WHERE p.name = 'telemetry'
"""


def _numbers(first: int, end: int) -> str:
    return NUMBERS.format(first=first, end=end)


def _execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _settle() -> None:
    """Do what PostgreSQL would otherwise do a minute later, in the middle of a run."""
    tidy = {"postgresql": ("VACUUM ANALYZE", "CHECKPOINT"), "sqlite": ("PRAGMA wal_checkpoint(TRUNCATE)",)}
    _execute(*tidy[connection.vendor])


def text(endpoints: int) -> str:
    """A policy that lists so many endpoints."""
    listed = "".join(f"  service-{number:02}.example.com:443\n" for number in range(endpoints))
    return f"egress-policy: block\nallowed-endpoints: >\n{listed}"


def scopes(*, policies: int, scopes: int, endpoints: int = ENDPOINTS) -> dict[str, Any]:
    """An organization with so many policies on so many scopes, all of which its inventory knows."""
    from tests import factories

    organization = factories.organization("octo-org")
    factories.policy(organization, "policy-0", text=text(endpoints))
    attached = scopes // policies
    repositories = scopes // 10
    _execute(
        OTHERS.format(numbers=_numbers(0, 1000)),
        OTHER_KEYS,
        POLICIES.format(numbers=_numbers(1, policies), attached=attached),
        REPOSITORIES.format(numbers=_numbers(0, repositories)),
        WORKFLOWS.format(numbers=_numbers(0, 10), least=0),
        ATTACHMENTS.format(numbers=_numbers(0, scopes), policies=policies),
    )
    _settle()
    return {"key": factories.api_key(organization), "management": factories.management_key(organization)}


def memory(*, policies: int, scopes: int, endpoints: int, exceptions: int) -> dict[str, Any]:
    """The same with open exceptions of every policy, a key that was revoked, and the cookie of a person."""
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

    from policystore.accounts.sessions import SessionStore
    from policystore.inventory.models import Organization
    from policystore.policies.models import Policy
    from policystore.policy_language.exceptions import OpenException, encode
    from tests import factories

    seeded = SEEDS["scopes"](policies=policies, scopes=scopes, endpoints=endpoints)
    now = timezone.now()
    open_ones = [OpenException(now + timedelta(days=1 + n), f"extra-{n}.example.com:443") for n in range(exceptions)]
    Policy.objects.update(open_exceptions=encode(open_ones))
    organization = Organization.objects.get(key="octo-org")
    revoked = factories.api_key(organization, slot="secondary")
    organization.api_keys.filter(slot="secondary").update(revoked_at=now)
    person, session = factories.member(organization), SessionStore()
    session.update(
        {
            SESSION_KEY: str(person.pk),
            BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
            HASH_SESSION_KEY: person.get_session_auth_hash(),
        }
    )
    session.save()
    return {**seeded, "revoked": revoked, "cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}"}


def jobs(*, jobs: int) -> dict[str, Any]:
    """After `scopes`: so many running jobs, ten runs of each, which fetched a policy that lists what they will call."""
    from policystore.inventory.models import Organization
    from tests import factories

    listed = "".join(f"  service-{number:02}.example.com:443\n" for number in range(40))
    text = f"egress-policy: block\nallowed-endpoints: >\n{listed}"
    factories.policy(Organization.objects.get(key="octo-org"), "telemetry", text=text)
    with connection.cursor() as cursor:
        statement = JOB_RUNS.format(numbers=_numbers(0, jobs), moment=MOMENTS[connection.vendor])
        cursor.execute(statement, [connection.ops.adapt_datetimefield_value(timezone.now())])
        cursor.execute("SELECT id FROM runners_jobrun ORDER BY id")
        runs = [run for (run,) in cursor.fetchall()]
    _settle()
    return {"runs": runs}


def statement() -> dict[str, Any]:
    """Add nothing; return the statement of the policy fetch, and parameters for it."""
    from policystore.policy_language.scopes import candidate_keys
    from policystore.runners.fetch import handler, query

    keys = candidate_keys("octo-org", "repository-1", "ci-1.yml", "some-cluster")
    parameters = {**query.parameters_of(keys, timezone.now()), "digest": "0" * 64}
    return {"statement": handler.STATEMENT.text, "parameters": parameters}


def policy_list(*, sizes: dict[str, int]) -> dict[str, Any]:
    """Add organizations with so many policies each; return the cookie of a person who may see them all, and the id of
    the policy in the middle of each organization."""
    middles = {login: policy_seeds.fill(login, count) for login, count in sizes.items()}
    _settle()
    return {"cookies": policy_seeds.signed_in(list(sizes)), "middles": middles}


def pages(*, login: str, **sizes: int) -> dict[str, Any]:
    """Add a busy organization (see page_seeds); return its ids, and the cookie of a person who may see all of it."""
    ids = page_seeds.fill(login, **sizes)
    _settle()
    return {"cookies": policy_seeds.signed_in([login]), **ids}


def impact(*, login: str, calls: int, saved: str) -> dict[str, Any]:
    """Add an organization whose runs made so many calls, as the worker leaves it, with the policy `saved` attached;
    return the number of runs, the policy, and the cookies of a person who may edit it."""
    from django.conf import settings
    from django.utils.crypto import get_random_string

    from policystore.policies.core import attachments
    from policystore.policy_language.scopes import Scope
    from policystore.traffic.impact import bitmap_store
    from tests import factories
    from tests.traffic import many_runs

    organization = factories.organization(login)
    runs = many_runs.observe(organization, calls=calls)
    policy = factories.policy(organization, "saved", text=saved)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization(login)]).apply(by=factories.SYSTEM)
    while not bitmap_store.catch_up(seconds=60):
        pass
    _settle()
    seeded = {
        "runs": runs,
        "policy": str(policy.pk),
        "csrf_cookie": settings.CSRF_COOKIE_NAME,
        "csrf": get_random_string(32),
    }
    return {**seeded, "cookies": policy_seeds.signed_in([login])}


def retention(*, events: int, seconds: float) -> dict[str, Any]:
    """Add so many events older than the retention and remove them; return how many a second were added and removed."""
    from tests.benchmarks import retention_seeds

    return retention_seeds.measure(events, seconds)


SEEDS: dict[str, Callable[..., dict[str, Any]]] = {
    "scopes": scopes,
    "memory": memory,
    "jobs": jobs,
    "impact": impact,
    "statement": statement,
    "policy-list": policy_list,
    "pages": pages,
    "retention": retention,
}


if __name__ == "__main__":
    django.setup()
    sys.stdout.write(json.dumps(SEEDS[sys.argv[1]](**json.load(sys.stdin))))
