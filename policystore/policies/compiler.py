"""Compiles policies: from the text and the endpoint sets that it includes to what runners get.

The rules that policies are checked against and compiled with, besides their own text, are the endpoint sets and the
never-allow hosts of their organization. A change to them recompiles policies in its own transaction; each whose reply
changes becomes a new version, with a history event, so that it stays visible which version a runner got.

An action that compiles a policy shares the lock on the rules; one that changes them takes it exclusively, and so finds
every policy that was compiled before.

Every action takes its locks in one order: the change request that it decides, the organization's rules, its
attachments, policies by id, then the history. An action that requests a change holds some of these already when it
looks for open requests, so it skips those that are locked.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import QuerySet

from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.db import transactions
from policystore.db.transactions import Lock
from policystore.inventory.models import Organization
from policystore.policies.errors import CannotRecompile, InvalidDocument, PolicyError
from policystore.policies.models import EndpointSet, EndpointSetUse, NeverAllowHost, Policy, StagedVersion
from policystore.policy_language import endpoint_sets, exceptions, never_allow, risks
from policystore.policy_language.document import (
    CheckedDocument,
    Combined,
    PolicyDocument,
    combined,
    compile_reply,
    read_reply,
    written_endpoints,
)
from policystore.policy_language.document import check as check_document
from policystore.policy_language.endpoint_parser import MAX_ENTRIES, cleaned
from policystore.policy_language.endpoint_sets import KnownSets
from policystore.policy_language.never_allow import NeverAllow

logger = logging.getLogger(__name__)

POLICIES_AT_ONCE = 200
COMPILED = ("reply", "egress_policy", "endpoint_count", "risk_count", "search_text")
COMPILED_OF_STAGED = ("reply", "egress_policy", "endpoint_count")
NAMES_PROPOSED = 1000


def keep_rules(organization_id: int) -> None:
    """Keep others from changing the organization's rules until the transaction ends. Take it before a policy's lock."""
    transactions.lock_shared(Lock.RULES, organization_id)


def change_rules(organization_id: int) -> None:
    """Keep others from compiling policies of the organization until the transaction ends. Take it before any policy's
    lock, and before `keep_rules` if a transaction needs both."""
    transactions.lock_exclusive(Lock.RULES, organization_id)


def change_attachments(organization_id: int) -> None:
    """Keep others from attaching or replacing policies of the organization until the transaction ends.

    Without it a scope could pass to a policy that the transaction has not locked, between looking up the scope's
    policy and locking it. Take it after `keep_rules` and before any policy's lock.
    """
    transactions.lock_exclusive(Lock.ATTACHMENTS, organization_id)


@dataclass(frozen=True, slots=True)
class Rules:
    """The endpoint sets of an organization, as far as the texts at hand name them, and what it never allows."""

    sets: KnownSets
    never_allow: NeverAllow

    def check(self, text: str, *, scope_types: Collection[str] = ()) -> CheckedDocument:
        """Read a policy's text under these rules and report every problem. Never raises."""
        return check_document(
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


def checked(policy: Policy, text: str) -> tuple[PolicyDocument, Rules]:
    """Read a text for a policy, where it is attached now, and the rules to compile it with. Raises InvalidDocument."""
    with_rules = for_text(policy.organization, text)
    held = policy.attachments.order_by().values_list("scope_type", flat=True).distinct() if policy.pk else ()
    found = with_rules.check(text, scope_types=set(held))
    if found.document is None:
        raise InvalidDocument(found.problems)
    return found.document, with_rules


def listed(organization: Organization, text: str) -> list[str]:
    """The clean endpoints that a text and the sets it includes list; entries with errors are left out."""
    own = [endpoint for entry in written_endpoints(text) if (endpoint := cleaned(entry))]
    names = endpoint_sets.names_in(text)
    sets = for_names(organization, names).sets.endpoints if names else {}
    return list(dict.fromkeys([*own, *(endpoint for endpoints in sets.values() for endpoint in endpoints)]))


def for_names(organization: Organization, names: Iterable[str]) -> Rules:
    """The rules for policies that include sets of these names."""
    wanted = {name.lower() for name in names}
    rows = EndpointSet.objects.filter(organization=organization)
    found = dict(rows.filter(name_key__in=wanted).values_list("name_key", "endpoints")) if wanted else {}
    # The other names are needed only to suggest the nearest one to an unknown name.
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


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a change on one policy: the endpoints that runners gain and lose."""

    policy_id: int
    name: str
    egress_policy: str
    attachment_count: int
    added: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def blocks(self) -> bool:
        """True if the policy blocks endpoints that it does not list."""
        return self.egress_policy == Policy.Mode.BLOCK


class PoliciesWouldChange(PolicyError):
    """The change would affect policies beyond those agreed to; `effects` is what it does to each policy."""

    def __init__(self, effects: list[Effect]) -> None:
        super().__init__("The change now affects other policies than the ones you reviewed. Review them again.")
        self.effects = effects


def fill(policy: Policy, *, document: PolicyDocument, with_rules: Rules) -> None:
    """Set what is compiled: the reply, and what lists and searches read. Name and description are set before."""
    found = combined(document, with_rules.sets.endpoints, with_rules.never_allow)
    endpoints = found.endpoints
    policy.reply = compile_reply(document, owner=policy.organization.key, name=policy.name, endpoints=endpoints)
    policy.egress_policy = document.egress_policy
    policy.endpoint_count = len(endpoints)
    policy.risk_count = risks.count(endpoints)
    policy.search_text = searchable(policy, document=document, found=found)


def searchable(policy: Policy, *, document: PolicyDocument, found: Combined) -> str:
    """The text that policy search matches: name, description, names of sets, every endpoint that it lists,
    also those left out as never allowed, and those of its exceptions."""
    words = [policy.name, policy.description, *document.endpoint_sets]
    listed = [*found.endpoints, *found.left_out]
    exceptional = [exception.endpoint for exception in exceptions.decode(policy.open_exceptions)]
    return "\n".join([*(word.lower() for word in words), *listed, *exceptional])


def follow_exceptions(organization: Organization, policies: Iterable[Policy]) -> None:
    """Update the search text of stored policies whose exceptions have changed; that of a policy whose text cannot be
    read stays as it is."""
    documents = {policy: check_document(policy.text).document for policy in policies}
    with_rules = for_documents(organization, documents.values())
    for policy, document in documents.items():
        try:
            read = readable(f"policy {policy.name}", document, with_rules)
        except CannotRecompile:
            continue
        found = combined(read, with_rules.sets.endpoints, with_rules.never_allow)
        policy.search_text = searchable(policy, document=read, found=found)


def readable(what: str, document: PolicyDocument | None, with_rules: Rules) -> PolicyDocument:
    """The document of a stored text, which was saved under earlier rules; `what` names it in an error.

    Raises CannotRecompile if it has errors now, or includes a set that no longer exists.
    """
    if document is None:
        raise CannotRecompile(f"The text of the {what} has errors: open it, fix the marked lines, and save it.")
    for name in document.endpoint_sets:
        if name.lower() not in with_rules.sets.endpoints:
            raise CannotRecompile(
                f"The {what} includes the endpoint set {name}, which no longer exists. Remove it, or create it again."
            )
    return document


def refuse_too_many(what: str, count: int) -> None:
    """Raise CannotRecompile for more endpoints than a policy can list."""
    if count > MAX_ENTRIES:
        raise CannotRecompile(f"The {what} would list {count:,} endpoints (maximum {MAX_ENTRIES:,}).")


def leave_as_stored(row: Policy | StagedVersion, never_allow: NeverAllow, *, name: str) -> None:
    """Keep the stored reply of a text that cannot be compiled, under the policy's current name and without endpoints
    that are never allowed."""
    stored = read_reply(row.reply)
    kept = [endpoint for endpoint in stored["allowed_endpoints"] if never_allow.refusing(endpoint) is None]
    reply = {**stored, "policy_name": name, "policyName": name, "allowed_endpoints": kept}
    if reply == stored:
        return
    row.reply = json.dumps(reply, separators=(",", ":"))
    row.endpoint_count = len(kept)
    if isinstance(row, Policy):
        row.risk_count = risks.count(kept)


def keep_uses(policy: Policy, names: Iterable[str]) -> None:
    """Store which sets a saved policy includes."""
    wanted = {name.lower() for name in names}
    uses = EndpointSetUse.objects.filter(policy=policy)
    if not wanted:
        uses.delete()
        return
    uses.exclude(endpoint_set__name_key__in=wanted).delete()
    missing = EndpointSet.objects.filter(organization=policy.organization, name_key__in=wanted)
    missing = missing.exclude(uses__policy=policy)
    EndpointSetUse.objects.bulk_create(EndpointSetUse(policy=policy, endpoint_set=found) for found in missing)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A policy as it is compiled now, as it was stored before, and what that changes for runners, if anything."""

    policy: Policy
    before: Policy
    effect: Effect | None


def recompile(
    organization: Organization,
    policies: QuerySet[Policy],
    *,
    agreed: Collection[int] | None = None,
    as_stored: bool = False,
) -> list[Compiled]:
    """Lock these policies of the organization and compile them after what they are compiled with has changed.

    Call it in the transaction of the change, which holds `change_rules`, before any history event is written;
    where nothing but the reading of texts has changed, `keep_rules` will do. Raises CannotRecompile, except where
    `as_stored` leaves those that cannot be compiled as they are, without what is never allowed; and PoliciesWouldChange
    for policies beyond those that the person agreed to change (by id; None agrees to all).
    """
    compiled: list[Compiled] = []
    ids = list(policies.filter(organization=organization).order_by("pk").values_list("pk", flat=True).distinct())
    for start in range(0, len(ids), POLICIES_AT_ONCE):
        rows = Policy.objects.filter(pk__in=ids[start : start + POLICIES_AT_ONCE]).select_related("organization")
        documents = {
            row: check_document(row.text).document for row in rows.order_by("pk").select_for_update(of=("self",))
        }
        with_rules = for_documents(organization, documents.values())
        for before, document in documents.items():
            policy = _compiled(before, document, with_rules, as_stored=as_stored)
            compiled.append(Compiled(policy, before, _effect(before, policy)))
    effects = [item.effect for item in compiled if item.effect is not None]
    if agreed is not None and not {effect.policy_id for effect in effects} <= set(agreed):
        raise PoliciesWouldChange(effects)
    return compiled


def save(
    compiled: Iterable[Compiled], *, by: Actor, at: datetime, reason: str, cause: Mapping[str, object]
) -> list[Effect]:
    """Store what `recompile` gave. Each policy whose reply changes gets a new version, and an event with the reason,
    what caused it and the endpoints that came and went."""
    effects = []
    for policy, before, effect in ((item.policy, item.before, item.effect) for item in compiled):
        if effect is None:
            if any(getattr(policy, name) != getattr(before, name) for name in COMPILED):
                policy.save(update_fields=COMPILED)
            continue
        policy.version += 1
        policy.changed_at, policy.changed_by = at, by.name
        policy.save(update_fields=[*COMPILED, "version", "changed_at", "changed_by"])
        details = {"cause": dict(cause), "endpoints_added": effect.added, "endpoints_removed": effect.removed}
        history.record_content(
            event_types.UPDATED, policy=policy, before=before, by=by, at=at, reason=reason, details=details
        )
        effects.append(effect)
    return effects


def _compiled(before: Policy, document: PolicyDocument | None, with_rules: Rules, *, as_stored: bool) -> Policy:
    policy, what = copy.copy(before), f"policy {before.name}"
    try:
        fill(policy, document=readable(what, document, with_rules), with_rules=with_rules)
        refuse_too_many(what, policy.endpoint_count)
    except CannotRecompile as refusal:
        if not as_stored:
            raise
        logger.warning("Left a policy of %s as it was compiled before: %s", before.organization.login, refusal)
        policy = copy.copy(before)
        leave_as_stored(policy, with_rules.never_allow, name=policy.name)
    return policy


def _effect(before: Policy, after: Policy) -> Effect | None:
    if before.reply == after.reply:
        return None
    old, new = dict.fromkeys(before.listed_endpoints), dict.fromkeys(after.listed_endpoints)
    return Effect(
        policy_id=after.pk,
        name=after.name,
        egress_policy=after.egress_policy,
        attachment_count=after.attachment_count,
        added=tuple(endpoint for endpoint in new if endpoint not in old),
        removed=tuple(endpoint for endpoint in old if endpoint not in new),
    )


def compile_staged(staged: StagedVersion, *, document: PolicyDocument, with_rules: Rules) -> None:
    """Set what is compiled of a staged version, as a policy of that text would have it. Raises CannotRecompile where
    that would list too many endpoints."""
    policy = staged.policy
    likeness = Policy(organization=policy.organization, name=policy.name, description=policy.description)
    fill(likeness, document=document, with_rules=with_rules)
    refuse_too_many(f"staged version of {policy.name}", likeness.endpoint_count)
    for name in COMPILED_OF_STAGED:
        setattr(staged, name, getattr(likeness, name))


def recompile_staged(
    organization: Organization, staged: Iterable[StagedVersion], *, as_stored: bool = False
) -> list[StagedVersion]:
    """Compile staged versions after what they are compiled with has changed; return those whose reply changes, unsaved.

    Call it in the transaction of the change. Raises CannotRecompile, except where `as_stored` leaves those that cannot
    be compiled as they are, without what is never allowed.
    """
    documents = {one: check_document(one.text).document for one in staged}
    with_rules = for_documents(organization, documents.values())
    return [one for one, document in documents.items() if _restaged(one, document, with_rules, as_stored=as_stored)]


def _restaged(staged: StagedVersion, document: PolicyDocument | None, with_rules: Rules, *, as_stored: bool) -> bool:
    before, name = staged.reply, staged.policy.name
    try:
        document = readable(f"staged version of {name}", document, with_rules)
        compile_staged(staged, document=document, with_rules=with_rules)
    except CannotRecompile:
        if not as_stored:
            raise
        leave_as_stored(staged, with_rules.never_allow, name=name)
    return staged.reply != before


def follow_name(policy: Policy) -> None:
    """Put the policy's new name into the reply of its staged version, even if its text cannot be read. Call it in the
    transaction of the rename."""
    rows = StagedVersion.objects.select_related("policy__organization").filter(pk=policy.pk)
    for staged in recompile_staged(policy.organization, rows, as_stored=True):
        staged.save(update_fields=COMPILED_OF_STAGED)


def save_staged(
    staged: StagedVersion, *, by: Actor, at: datetime, text_before: str | None = None, reason: str = ""
) -> None:
    """Store a staged version that was saved or recompiled, with its history event; counts restart from here.

    `text_before` is the text that it replaces; None if it was only recompiled.
    """
    event = history.record_policy(
        event_types.STAGED,
        policy=staged.policy,
        by=by,
        at=at,
        reason=reason,
        # Not in the columns for texts, which describe the live version.
        details={
            "text_before": staged.text if text_before is None else text_before,
            "text_after": staged.text,
            "reply": staged.reply,
            "based_on": staged.based_on_version,
            "canaries": [canary.scope_key for canary in staged.canaries.all()],
        },
    )
    staged.event_id, staged.staged_at, staged.staged_by = event.pk, at, by.name
    staged.save()
