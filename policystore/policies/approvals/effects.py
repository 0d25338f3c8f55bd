"""The effect of a change request: the state of each policy that it touches, before and after it.

Both states are read inside the transaction that makes the change, so they are what the change does and not what it was
meant to do. `Effect.digest` names them exactly: an approval is of one digest.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from policystore.inventory.models import Organization
from policystore.policies.core import queries
from policystore.policies.models import Attachment, CanaryScope, EndpointSetUse, Policy, PolicyException, StagedVersion
from policystore.policy_language.scopes import Scope
from policystore.policy_language.values import SWITCH_FIELDS

State = dict[str, Any]
IN_FULL, NAMES, SCOPES = 50, 1000, 500
IDS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a change: `shown` is the part that pages show, as JSON, and `digest` identifies all of it."""

    shown: Mapping[str, Any]
    digest: str


def states(policy_ids: Iterable[int]) -> dict[int, State]:
    """The state of each policy by id, as it is served now; a policy that does not exist is missing."""
    ids, found = sorted(set(policy_ids)), dict[int, State]()
    for start in range(0, len(ids), IDS_PER_QUERY):
        found |= _states(ids[start : start + IDS_PER_QUERY])
    return found


def serving(organization: Organization, keys: Iterable[str]) -> dict[str, str]:
    """The policy that a job gets in each scope, such as “ci (block)”, by the scope's key; empty for none.

    A cluster's policy, which applies where no other does, is not considered: only a run knows its cluster.
    """
    scopes = {key: Scope.from_key(key) for key in keys}
    found = queries.holders(organization, {key for scope in scopes.values() for key in (scope.key, *scope.wider_keys)})
    holders = {key: f"{holder.policy.name} ({holder.policy.egress_policy})" for key, holder in found.items()}
    return {
        key: next((holders[candidate] for candidate in (key, *scope.wider_keys) if candidate in holders), "")
        for key, scope in scopes.items()
    }


def effect_of(
    make: Callable[[], object],
    *,
    organization: Organization,
    request: Mapping[str, Any],
    touched: Collection[int],
    scopes: Collection[str],
    set_text: Callable[[], str | None],
) -> Effect:
    """Call `make`, which makes the change, and compare the states; of policies other than the subject only those that
    change.

    `request` is what was asked for, `touched` are the policies that the change can affect, by id, `scopes` the keys of
    those it can add or take away, and `set_text` gives the text of the endpoint set that it changes, if it is one.
    """
    served, before, text_before = serving(organization, scopes), states(touched), set_text()
    make()
    after, text_after, subject = states(touched), set_text(), request["payload"].get("policy_id")
    keys = sorted({key for pk in touched for key in _scopes(before.get(pk)) ^ _scopes(after.get(pk))})
    served_before, served_after = {key: served.get(key, "") for key in keys}, serving(organization, keys)
    texts = () if text_before is None or text_after is None else (text_before, text_after)
    ids = [pk for pk in sorted(before.keys() | after.keys()) if pk == subject or before.get(pk) != after.get(pk)]
    ids.sort(key=lambda pk: (pk != subject, not _needs_attention(after.get(pk))))
    bound = [[pk, before.get(pk), after.get(pk)] for pk in ids]
    rest = ids[IN_FULL:]
    shown = {
        "policies": [_compared(pk, before.get(pk), after.get(pk), is_subject=pk == subject) for pk in ids[:IN_FULL]],
        "more_names": [(after.get(pk) or before[pk])["name"] for pk in rest[:NAMES]],
        "more": len(rest),
        "scopes": [{"key": key, "before": served_before[key], "after": served_after[key]} for key in keys[:SCOPES]],
        "more_scopes": max(len(keys) - SCOPES, 0),
        "texts": list(texts or _texts(before.get(subject or 0), after.get(subject or 0))),
    }
    every = [dict(request), bound, sorted(served_before.items()), sorted(served_after.items()), list(texts)]
    return Effect(shown, hashlib.sha256(json.dumps(every, sort_keys=True).encode()).hexdigest())


def _states(ids: Collection[int]) -> dict[int, State]:
    found = {policy.pk: _state(policy) for policy in Policy.objects.filter(pk__in=ids)}
    uses = EndpointSetUse.objects.filter(policy__in=ids).order_by("endpoint_set__name_key")
    for policy_id, name in uses.values_list("policy_id", "endpoint_set__name"):
        found[policy_id]["sets"].append(name)
    for row in PolicyException.objects.active().filter(policy__in=ids).order_by("expires_at", "pk"):
        found[row.policy_id]["exceptions"].append(
            {
                "endpoint": row.endpoint,
                "until": f"{row.expires_at:%Y-%m-%d %H:%M} UTC",
                "owner": row.owner,
                "reason": row.reason,
                "is_served": row.endpoint in found[row.policy_id]["endpoints"],
            }
        )
    for policy_id, key in Attachment.objects.filter(policy__in=ids).values_list("policy_id", "scope_key"):
        found[policy_id]["scopes"].append(key)
    canaries = defaultdict(list)
    for policy_id, key in CanaryScope.objects.filter(staged__in=ids).values_list("staged_id", "scope_key"):
        canaries[policy_id].append(key)
    for staged in StagedVersion.objects.filter(pk__in=ids).select_related("policy"):
        found[staged.pk]["staged"] = {
            "text": staged.text,
            "mode": staged.egress_policy,
            "reply": json.loads(staged.served_reply),
            "canaries": canaries[staged.pk],
        }
    return found


def _state(policy: Policy) -> State:
    reply = json.loads(policy.served_reply)
    return {
        "name": policy.name,
        "description": policy.description,
        "version": policy.version,
        "text": policy.text,
        "mode": reply["egress_policy"],
        "endpoints": reply["allowed_endpoints"],
        "switches": {name: reply[name] for name in SWITCH_FIELDS},
        "lockdown": reply.get("lockdown"),
        "sets": [],
        "exceptions": [],
        "scopes": [],
        "staged": None,
    }


def _needs_attention(state: State | None) -> bool:
    """True if more than the policy's text and sets decides what it serves; such policies are shown first."""
    return bool(state and (state["exceptions"] or state["staged"]))


def _scopes(state: State | None) -> set[str]:
    return set(state["scopes"]) if state else set()


def _texts(before: State | None, after: State | None) -> tuple[str, ...]:
    """The texts to compare: of the live version, or of the live version and what is staged beside it."""
    if before is None:
        return ()
    text_after = after["text"] if after else ""
    if before["text"] != text_after:
        return before["text"], text_after
    if after and after["staged"] and before["staged"] != after["staged"]:
        return before["text"], after["staged"]["text"]
    return ()


def _compared(policy_id: int, before: State | None, after: State | None, *, is_subject: bool) -> dict[str, Any]:
    """One policy as pages show it; only the subject's list of endpoints is shown as a whole."""
    now, then = before or after or {}, after or before or {}
    old, new = now["endpoints"], then["endpoints"] if after else []
    compared = {
        "id": policy_id,
        "name": then["name"],
        "name_before": now["name"],
        "is_deleted": after is None,
        "version": now["version"],
        "mode": [now["mode"], then["mode"]],
        "count": len(new),
        "added": _without(new, old),
        "removed": _without(old, new),
        "sets": then["sets"],
        "exceptions": then["exceptions"],
        "switches": [[name, now["switches"][name], then["switches"][name]] for name in SWITCH_FIELDS],
        "lockdown": [_lockdown(now["lockdown"]), _lockdown(then["lockdown"])],
        "scope_count": len(then["scopes"]) if after else 0,
        "staged": _staged(now["staged"], then["staged"] if after else None, now["endpoints"]),
    }
    return compared | ({"endpoints": new} if is_subject else {})


def _staged(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, live: list[str]
) -> dict[str, Any] | None:
    """The staged version after the change, compared with the live version before it; None where nothing is staged."""
    if after is None:
        return None
    endpoints = after["reply"]["allowed_endpoints"]
    held = set(before["canaries"]) if before else set()
    return {
        "is_changed": before != after,
        "mode": after["mode"],
        "endpoints": endpoints,
        "added": _without(endpoints, live),
        "removed": _without(live, endpoints),
        "switches": [[name, after["reply"][name]] for name in SWITCH_FIELDS],
        "lockdown": _lockdown(after["reply"].get("lockdown")),
        "canaries": after["canaries"],
        "canaries_added": sorted(set(after["canaries"]) - held),
        "canaries_removed": sorted(held - set(after["canaries"])),
    }


def _without(endpoints: list[str], others: list[str]) -> list[str]:
    left_out = set(others)
    return [endpoint for endpoint in endpoints if endpoint not in left_out]


def _lockdown(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "not set"
    return f"{'on' if value['enabled'] else 'off'}: {', '.join(value.get('detections') or ['no detections'])}"
