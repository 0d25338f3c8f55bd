"""Makes the one list that runners get of everything that adds to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policystore.policy_language.document import PolicyDocument
from policystore.policy_language.never_allow import NOTHING_REFUSED, NeverAllow, Refused


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An endpoint that is listed but never allowed; `source` is the set that lists it, empty for the policy itself."""

    endpoint: str
    source: str
    refused: Refused


@dataclass(frozen=True, slots=True)
class Combined:
    """What runners get, in their order, each once, and what is left out of it."""

    endpoints: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def combined(
    document: PolicyDocument, sets: Mapping[str, Sequence[str]], never_allow: NeverAllow = NOTHING_REFUSED
) -> Combined:
    """A policy's own endpoints in their order, then those of its sets in theirs, without what is never allowed.

    `sets` holds the endpoints of the sets by name in lower case. Raises KeyError for a set that is not among them.
    """
    kept: dict[str, None] = {}
    left_out: dict[str, LeftOut] = {}
    for endpoint, source in _listed(document, sets):
        if endpoint in kept or endpoint in left_out:
            continue
        refused = never_allow.refusing(endpoint)
        if refused is None:
            kept[endpoint] = None
        else:
            left_out[endpoint] = LeftOut(endpoint, source, refused)
    return Combined(tuple(kept), tuple(left_out.values()))


def _listed(document: PolicyDocument, sets: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    for endpoint in document.allowed_endpoints:
        yield endpoint, ""
    for name in document.endpoint_sets:
        for endpoint in sets[name.lower()]:
            yield endpoint, name
