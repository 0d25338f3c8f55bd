"""The rules that policies are checked against and compiled with, besides their own text."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from policystore.inventory.models import Organization
from policystore.policies.models import EndpointSet, NeverAllowHost
from policystore.policy_language import document, endpoint_sets, never_allow
from policystore.policy_language.document import CheckedDocument, PolicyDocument
from policystore.policy_language.endpoint_parser import cleaned
from policystore.policy_language.endpoint_sets import KnownSets
from policystore.policy_language.never_allow import NeverAllow

NAMES_PROPOSED = 1000


@dataclass(frozen=True, slots=True)
class Rules:
    """The endpoint sets of an organization, as far as the texts at hand name them, and what it never allows."""

    sets: KnownSets
    never_allow: NeverAllow

    def check(self, text: str, *, scope_types: Collection[str] = ()) -> CheckedDocument:
        """Read a policy's text under these rules and report every problem. Never raises."""
        return document.check(
            text, scope_types=scope_types, sets=self.sets, never_allow=self.never_allow, stores=store_endpoints()
        )


def store_endpoints() -> list[str]:
    """The public addresses of the store, as `host:port`: where jobs report, and where they fetch policies."""
    return list(dict.fromkeys(endpoint_of(url) for url in (settings.PUBLIC_URL, settings.RUNNER_URL)))


def endpoint_of(url: str) -> str:
    """The `host:port` of an http or https address."""
    address = urlsplit(url)
    return f"{address.hostname}:{address.port or (443 if address.scheme == 'https' else 80)}"


def for_text(organization: Organization, text: str) -> Rules:
    """The rules for compiling a text."""
    return for_names(organization, endpoint_sets.names_in(text))


def check(organization: Organization, text: str, *, scope_types: Collection[str] = ()) -> CheckedDocument:
    """Read a text under the organization's rules and report every problem. Never raises."""
    return for_text(organization, text).check(text, scope_types=scope_types)


def listed(organization: Organization, text: str) -> list[str]:
    """The clean endpoints that a text and the sets it includes list; entries with errors are left out."""
    own = [endpoint for entry in document.written_endpoints(text) if (endpoint := cleaned(entry))]
    names = endpoint_sets.names_in(text)
    sets = for_names(organization, names).sets.endpoints if names else {}
    return list(dict.fromkeys([*own, *(endpoint for endpoints in sets.values() for endpoint in endpoints)]))


def for_names(organization: Organization, names: Iterable[str]) -> Rules:
    """The rules for policies that include sets of these names."""
    wanted = {name.lower() for name in names}
    rows = EndpointSet.objects.filter(organization=organization)
    found = dict(rows.filter(name_key__in=wanted).values_list("name_key", "endpoints")) if wanted else {}
    # Only where a name is unknown is the nearest of all proposed.
    every = rows.order_by("name_key").values_list("name", flat=True)[:NAMES_PROPOSED] if wanted - found.keys() else ()
    sets = KnownSets({key: tuple(endpoints) for key, endpoints in found.items()}, tuple(every))
    return Rules(sets, never_allow_of(organization))


def for_documents(organization: Organization, documents: Iterable[PolicyDocument | None]) -> Rules:
    """The rules for policies with these documents; None for one that cannot be read."""
    return for_names(organization, {name for document in documents if document for name in document.endpoint_sets})


def never_allow_of(organization: Organization) -> NeverAllow:
    """The organization's never-allow hosts."""
    rows = NeverAllowHost.objects.filter(organization=organization).order_by("host")
    return never_allow.from_pairs(rows.values_list("host", "reason"))
