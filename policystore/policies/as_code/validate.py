"""Validates a bundle: every name, text and scope in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta

from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.core import name_validation
from policystore.policies.errors import PolicyError
from policystore.policies.exceptions import MAX_OWNER, MAX_REASON, MOST_DAYS, MOST_OPEN
from policystore.policies.models import EndpointSet
from policystore.policies.never_allow import MAX_REASON as MAX_HOST_REASON
from policystore.policies.staging import MAX_CANARIES
from policystore.policy_language import endpoint_sets, never_allow
from policystore.policy_language.bundle import (
    ABOUT,
    CANARIES,
    EXCEPTIONS,
    NEVER_ALLOW,
    POLICIES,
    POLICY_TEXT,
    SET_TEXT,
    SETS,
    STAGED_TEXT,
    BrokenBundle,
    Bundle,
    BundledException,
    BundledHost,
    BundledPolicy,
    BundledSet,
    BundledStaged,
)
from policystore.policy_language.document import check, combined
from policystore.policy_language.endpoint_sets import KnownSets, check_set
from policystore.policy_language.never_allow import NOTHING_REFUSED, NeverAllow, NoHost, read_host
from policystore.policy_language.problems import START, Position, Problem, error
from policystore.policy_language.scopes import overlap

Found = Iterator[tuple[str, Problem]]


def refuse_broken(bundle: Bundle, organization: Organization | None) -> None:
    """Raise BrokenBundle with every problem; policies may include the bundle's sets, and the organization's."""
    problems = list(_of_sets(bundle, organization))
    sets = _known_sets(bundle, organization)
    problems += [found for host in bundle.never_allow or () for found in _of_host(host)]
    forbidden = _forbidden(bundle, organization)
    problems += [found for policy in bundle.policies for found in _of_policy(bundle, policy, sets, forbidden)]
    if problems:
        raise BrokenBundle(problems)


def _of_sets(bundle: Bundle, organization: Organization | None) -> Found:
    rows = EndpointSet.objects.filter(organization=organization)
    saved, staying = set(rows.values_list("name", "text", "description")), _staying(bundle, organization)
    for one in bundle.sets:
        # What is saved already is not saved again, and may list what is never allowed since.
        is_saved = (one.name, one.text, one.description) in saved
        yield from _of_set(one, NOTHING_REFUSED if is_saved else staying)


def _of_set(endpoint_set: BundledSet, forbidden: NeverAllow) -> Found:
    folder = f"{SETS}/{endpoint_set.name}"
    yield from _refused(name_validation.set_name, endpoint_set.name, f"{folder}/{SET_TEXT}")
    yield from _refused(name_validation.description, endpoint_set.description, f"{folder}/{ABOUT}")
    for problem in check_set(endpoint_set.text, never_allow=forbidden).problems:
        if problem.severity == "error":
            yield f"{folder}/{SET_TEXT}", problem


def _of_policy(bundle: Bundle, policy: BundledPolicy, sets: KnownSets, forbidden: NeverAllow) -> Found:
    text, about = (f"{POLICIES}/{policy.name}/{name}" for name in (POLICY_TEXT, ABOUT))
    yield from _refused(name_validation.policy_name, policy.name, text)
    yield from _refused(name_validation.description, policy.description, about)
    checked = check(policy.text, sets=sets, never_allow=forbidden)
    for problem in checked.errors:
        yield text, problem
    for scope in policy.scopes:
        if scope.owner != bundle.organization:
            yield about, error(START, "foreign-scope", f"{scope.key} does not belong to {bundle.organization}.")
    listed = checked.document and combined(checked.document, sets.endpoints, forbidden).endpoints
    yield from _of_exceptions(policy, listed or (), forbidden)
    if policy.staged and not policy.staged.is_nothing:
        yield from _of_staged(policy, policy.staged, sets, forbidden)


def _of_exceptions(policy: BundledPolicy, listed: Collection[str], forbidden: NeverAllow) -> Found:
    path = f"{POLICIES}/{policy.name}/{EXCEPTIONS}"
    now = timezone.now()
    still_open = [one for one in policy.exceptions or () if one.until > now]
    for one in still_open:
        for message, hint in _against(one, policy, listed, forbidden, now):
            yield path, error(Position(one.line, 1), "refused-exception", message, hint)
    if len(still_open) > MOST_OPEN:
        message = f"There are {len(still_open)} exceptions (maximum {MOST_OPEN})."
        first = Position(still_open[MOST_OPEN].line, 1)
        yield path, error(first, "too-many", message, "List those endpoints in the policy.")


def _against(
    one: BundledException, policy: BundledPolicy, listed: Collection[str], forbidden: NeverAllow, now: datetime
) -> Iterator[tuple[str, str]]:
    refused = forbidden.refusing(one.endpoint)
    if refused is not None:
        yield f"{one.endpoint} is never allowed ({refused.host}): {refused.reason}", "Remove the exception."
    if one.endpoint in listed:
        yield f"{policy.name} already lists {one.endpoint}.", "Remove the exception."
    if one.until > now + timedelta(days=MOST_DAYS):
        yield f"{one.until:%Y-%m-%d} is more than {MOST_DAYS} days away.", "Choose an earlier end."
    if len(one.reason) > MAX_REASON or len(one.owner) > MAX_OWNER or not (one.reason + one.owner).isprintable():
        yield "Owner or reason is too long, or cannot be printed.", f"A reason has at most {MAX_REASON} characters."


def _of_staged(policy: BundledPolicy, staged: BundledStaged, sets: KnownSets, forbidden: NeverAllow) -> Found:
    text, canaries = (f"{POLICIES}/{policy.name}/{name}" for name in (STAGED_TEXT, CANARIES))
    for problem in check(staged.text, sets=sets, never_allow=forbidden).errors:
        yield text, problem
    for scope in staged.canaries:
        if not any(overlap(scope, held) for held in policy.scopes):
            message = f"No job of {scope.key} gets {policy.name}."
            yield canaries, error(START, "not-covered", message, f"Attach the policy there, in {ABOUT}.")
    if len(staged.canaries) > MAX_CANARIES:
        message = f"There are {len(staged.canaries)} canary scopes (maximum {MAX_CANARIES})."
        yield canaries, error(START, "too-many", message, "Choose wider scopes.")


def _of_host(host: BundledHost) -> Found:
    at = Position(host.line, 1)
    try:
        read_host(host.host)
    except NoHost as refusal:
        yield NEVER_ALLOW, error(at, "no-host", f"“{host.host[:60]}” is not a valid host.", str(refusal))
    if len(host.reason) > MAX_HOST_REASON or not host.reason.isprintable():
        hint = f"Use at most {MAX_HOST_REASON} printable characters."
        yield NEVER_ALLOW, error(at, "no-reason", f"The reason for “{host.host[:60]}” is not valid.", hint)


def _forbidden(bundle: Bundle, organization: Organization | None) -> NeverAllow:
    if bundle.never_allow is not None:
        return never_allow.from_pairs((one.host, one.reason) for one in bundle.never_allow)
    return compiler.never_allow_of(organization) if organization else NOTHING_REFUSED


def _staying(bundle: Bundle, organization: Organization | None) -> NeverAllow:
    """The never-allow hosts before and after: sets are written when old hosts are off the list, and before new ones
    are put on it."""
    if organization is None:
        return NOTHING_REFUSED
    now = compiler.never_allow_of(organization)
    if bundle.never_allow is None:
        return now
    kept = {one.host for one in bundle.never_allow}
    return NeverAllow(tuple(one for one in now.refused if one.host in kept))


def _refused(refuse: Callable[[str], str], value: str, path: str) -> Found:
    try:
        if refuse(value) != value:
            yield path, error(START, "white-space", f"There is white space around “{value[:60]}”.", "Remove it.")
    except PolicyError as refusal:
        yield path, error(START, "refused", str(refusal))


def _known_sets(bundle: Bundle, organization: Organization | None) -> KnownSets:
    named = {key for policy in bundle.policies for text in _texts(policy) for key in endpoint_sets.keys_in(text)}
    stored = EndpointSet.objects.filter(organization=organization, name_key__in=named)
    known = {key: tuple(endpoints) for key, endpoints in stored.values_list("name_key", "endpoints")}
    bundled = {item.name.lower(): check_set(item.text).endpoints or () for item in bundle.sets}
    return KnownSets({**known, **bundled}, tuple(item.name for item in bundle.sets))


def _texts(policy: BundledPolicy) -> Iterator[str]:
    yield policy.text
    if policy.staged:
        yield policy.staged.text
