"""Whether a bundle can be applied: every name, text and scope in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from policystore.documents import set_names
from policystore.documents.bundle import (
    ABOUT,
    POLICIES,
    POLICY_TEXT,
    SET_TEXT,
    SETS,
    BrokenBundle,
    Bundle,
    BundledPolicy,
    BundledSet,
)
from policystore.documents.document import check
from policystore.documents.never_allow import NOTHING_REFUSED, NeverAllow
from policystore.documents.problems import Problem, error
from policystore.documents.set_names import KnownSets
from policystore.documents.set_text import check_set
from policystore.inventory.models import Organization
from policystore.policies import naming, rules
from policystore.policies.errors import PolicyError
from policystore.policies.models import EndpointSet

Found = Iterator[tuple[str, Problem]]


def refuse_broken(bundle: Bundle, organization: Organization | None) -> None:
    """Raise BrokenBundle with every problem; policies may include the bundle's sets, and the organization's."""
    problems = [found for endpoint_set in bundle.sets for found in _of_set(endpoint_set)]
    sets = _known_sets(bundle, organization)
    forbidden = rules.never_allow_of(organization) if organization else NOTHING_REFUSED
    problems += [found for policy in bundle.policies for found in _of_policy(bundle, policy, sets, forbidden)]
    if problems:
        raise BrokenBundle(problems)


def _of_set(endpoint_set: BundledSet) -> Found:
    folder = f"{SETS}/{endpoint_set.name}"
    yield from _refused(naming.set_name, endpoint_set.name, f"{folder}/{SET_TEXT}")
    yield from _refused(naming.description, endpoint_set.description, f"{folder}/{ABOUT}")
    for problem in check_set(endpoint_set.text).problems:
        if problem.severity == "error":
            yield f"{folder}/{SET_TEXT}", problem


def _of_policy(bundle: Bundle, policy: BundledPolicy, sets: KnownSets, forbidden: NeverAllow) -> Found:
    text, about = (f"{POLICIES}/{policy.name}/{name}" for name in (POLICY_TEXT, ABOUT))
    yield from _refused(naming.policy_name, policy.name, text)
    yield from _refused(naming.description, policy.description, about)
    for problem in check(policy.text, sets=sets, never_allow=forbidden).errors:
        yield text, problem
    for scope in policy.scopes:
        if scope.owner != bundle.organization:
            yield about, error(1, 1, "foreign-scope", f"{scope.key} does not belong to {bundle.organization}.")


def _refused(refuse: Callable[[str], str], value: str, path: str) -> Found:
    try:
        if refuse(value) != value:
            yield path, error(1, 1, "white-space", f"There is white space around “{value[:60]}”.", "Remove it.")
    except PolicyError as refusal:
        yield path, error(1, 1, "refused", str(refusal))


def _known_sets(bundle: Bundle, organization: Organization | None) -> KnownSets:
    named = {name.lower() for policy in bundle.policies for name in set_names.names_in(policy.text)}
    stored = EndpointSet.objects.filter(organization=organization, name_key__in=named)
    known = {key: tuple(endpoints) for key, endpoints in stored.values_list("name_key", "endpoints")}
    bundled = {item.name.lower(): check_set(item.text).endpoints or () for item in bundle.sets}
    return KnownSets({**known, **bundled}, tuple(item.name for item in bundle.sets))
