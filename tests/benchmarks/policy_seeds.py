"""Organizations with very many policies, for the list: with documents, scopes, staged versions and exceptions."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice
from typing import Any

ROWS_AT_ONCE = 2000
OWNERS = 40
# So many policies of each organization have the word that is searched for; so many are risky, and attached to nothing.
MARKED = 30
RARE = 50
MARK = "quarantine"


def fill(login: str, count: int) -> int:
    """An organization with so many policies; returns the id of the one in the middle."""
    from django.utils import timezone

    from policystore.policies.models import Attachment, CanaryScope, Policy, PolicyException, StagedVersion
    from tests import factories

    organization = factories.organization(login)
    now = timezone.now()
    rows = (_policy(organization, number, count, now) for number in range(count))
    while made := Policy.objects.bulk_create(islice(rows, ROWS_AT_ONCE)):
        numbered = [(int(policy.name[-6:]), policy) for policy in made]
        Attachment.objects.bulk_create(
            Attachment(
                policy=policy,
                organization=organization,
                scope_key=key,
                scope_type=kind,
                attached_at=now,
                attached_by="x",
            )
            for number, policy in numbered
            for kind, key in _scopes(login, number, count)
        )
        StagedVersion.objects.bulk_create(_staged(policy, now) for number, policy in numbered if number % 20 == 3)
        CanaryScope.objects.bulk_create(
            CanaryScope(staged_id=policy.pk, scope_key=key)
            for number, policy in numbered
            if number % 20 == 3
            for _, key in _scopes(login, number, count)[:1]
        )
        PolicyException.objects.bulk_create(
            PolicyException(
                policy=policy,
                organization=organization,
                endpoint="hotfix.example.org:443",
                reason="Until the mirror is back",
                owner=policy.changed_by,
                added_at=now,
                expires_at=now + timedelta(days=30),
            )
            for number, policy in numbered
            if policy.open_exceptions
        )
    return Policy.objects.get(organization=organization, name=f"policy-{count // 2:06}").pk


def _policy(organization: Any, number: int, count: int, now: datetime) -> Any:
    from policystore.policies.models import Policy
    from policystore.policy_language import exceptions

    endpoints = [f"service-{(number * 7 + 13 * place) % 900:03}.example.com:443" for place in range(5 + number % 9)]
    mode = "audit" if number // 2 % 2 else "block"
    name, owner = f"policy-{number:06}", f"owner-{number % OWNERS}"
    marked, scopes = _is_one_of(MARKED, number, count), _scopes(organization.key, number, count)
    description = f"Kept by team {number % OWNERS}" + (f", in {MARK}" if marked else "")
    text = f"egress-policy: {mode}\nallowed-endpoints: >\n" + "".join(f"  {endpoint}\n" for endpoint in endpoints)
    held = [exceptions.OpenException(now + timedelta(days=30), "hotfix.example.org:443")] if number % 25 == 4 else []
    return Policy(
        organization=organization,
        name=name,
        name_key=name,
        description=description,
        text=text,
        version=1 + number % 4,
        reply=_reply(organization.key, name, mode, endpoints),
        egress_policy=mode,
        endpoint_count=len(endpoints),
        attachment_count=len(scopes),
        risk_count=int(_is_one_of(RARE, number, count)),
        search_text="\n".join([name, description.lower(), *endpoints]),
        open_exceptions=exceptions.encode(held),
        created_at=now - timedelta(days=400),
        created_by=owner,
        changed_at=now - timedelta(seconds=37 * ((number * 7919) % count), microseconds=number),
        changed_by=owner,
    )


def _reply(owner: str, name: str, mode: str, endpoints: list[str]) -> str:
    from policystore.policy_language.document import check, compile_reply

    document = check(f"egress-policy: {mode}\nallowed-endpoints: github.com:443\n").document
    assert document is not None
    return compile_reply(document, owner=owner, name=name, endpoints=endpoints)


def _is_one_of(chosen: int, number: int, count: int) -> bool:
    """Whether the policy of this number is one of so many, which stand at equal distances."""
    step = max(count // chosen, 1)
    return number % step == 0 and number // step < chosen


def _scopes(login: str, number: int, count: int) -> list[tuple[str, str]]:
    if _is_one_of(RARE, number, count):
        return []
    repository = f"{login}/repository-{number:06}"
    workflows = [("workflow", f"workflow:{repository}/ci-{place}.yml") for place in range(number % 4)]
    return [("repository", f"repository:{repository}"), *workflows]


def _staged(policy: Any, now: datetime) -> Any:
    from policystore.policies.models import StagedVersion

    return StagedVersion(
        policy=policy,
        text=policy.text,
        reply=policy.reply,
        egress_policy=policy.egress_policy,
        endpoint_count=policy.endpoint_count,
        based_on_version=policy.version,
        event_id=policy.pk,
        staged_at=now,
        staged_by=policy.changed_by,
    )


def signed_in(logins: list[str]) -> dict[str, str]:
    """The session cookie of an owner of these organizations."""
    from django.conf import settings

    from policystore.accounts.roles import Role
    from policystore.accounts.sessions import SessionStore
    from policystore.inventory.models import Organization
    from tests import factories

    for login in logins:
        person = factories.member(Organization.objects.get(key=login), Role.OWNER)
    session = SessionStore()
    session["_auth_user_id"] = str(person.pk)
    session["_auth_user_backend"] = settings.AUTHENTICATION_BACKENDS[0]
    session["_auth_user_hash"] = person.get_session_auth_hash()
    session.create()
    return {settings.SESSION_COOKIE_NAME: session.session_key}
