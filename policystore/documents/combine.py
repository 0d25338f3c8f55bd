"""Makes the one list that runners get of everything that adds to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from policystore.documents.document import PolicyDocument


def combined(document: PolicyDocument, sets: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A policy's own endpoints in their order, then those of its sets in theirs, each once.

    `sets` holds the endpoints of the sets by name in lower case. Raises KeyError for a set that is not among them.
    """
    parts: list[Iterable[str]] = [document.allowed_endpoints]
    parts += [sets[name.lower()] for name in document.endpoint_sets]
    return tuple(dict.fromkeys(endpoint for part in parts for endpoint in part))
