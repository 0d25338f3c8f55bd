"""Reads the rows that decide what runners get, as they are in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from django.db.models import Model, Q

from policystore.accounts.models import ApiKey
from policystore.integrity.recorded import BLOCKLIST_ENTRY, STORE_WIDE_ENTRY, Columns, Row, Rows
from policystore.inventory.models import Organization
from policystore.policies.models import (
    Attachment,
    BreakGlass,
    CanaryScope,
    EndpointSet,
    EndpointSetUse,
    FourEyes,
    NeverAllowHost,
    Policy,
    PolicyException,
    StagedVersion,
)
from policystore.runners.models import BlocklistEntry

MutableRows = dict[Row, Columns]
_NAMED = ("name", "name key", "description", "text", "version", "endpoint count")
_POLICY = (*_NAMED, "reply", "egress policy", "open exceptions", "attachment count")


def policy_rows(policies: Collection[Policy]) -> Mapping[int, Rows]:
    """The rows of each of these policies, by its id."""
    rows: defaultdict[int, MutableRows] = defaultdict(dict)
    for policy in policies:
        rows[policy.pk][Row("policy")] = _of_organization(policy, *_POLICY)
    ids = list(rows)
    _add_scopes(ids, rows)
    _add_exceptions(ids, rows)
    for staged in StagedVersion.objects.filter(pk__in=ids):
        columns = _columns(staged, "text", "reply", "egress policy", "endpoint count", "based on version")
        rows[staged.pk][Row("staged version")] = {**columns, "event": staged.event_id}
    return rows


def _columns(row: Model, *names: str) -> Columns:
    """The columns of a row by the words that sentences use for them, such as "egress policy"."""
    return {name: getattr(row, name.replace(" ", "_")) for name in names}


def _of_organization(row: Policy | PolicyException | EndpointSet, *names: str) -> Columns:
    return {"organization": row.organization_id, **_columns(row, *names)}


def _add_scopes(ids: Collection[int], rows: Mapping[int, MutableRows]) -> None:
    attachments = Attachment.objects.filter(policy__in=ids).order_by()
    for policy_id, key, scope_type, organization_id in attachments.values_list(
        "policy_id", "scope_key", "scope_type", "organization_id"
    ):
        rows[policy_id][Row("attachment", key)] = {"organization": organization_id, "scope type": scope_type}
    canaries = CanaryScope.objects.filter(staged__in=ids).order_by()
    for policy_id, key in canaries.values_list("staged_id", "scope_key"):
        rows[policy_id][Row("canary scope", key)] = {}
    # Another organization can have a set with the same name.
    uses = EndpointSetUse.objects.filter(policy__in=ids).order_by("endpoint_set_id")
    for policy_id, key, set_id in uses.values_list("policy_id", "endpoint_set__name_key", "endpoint_set_id"):
        inclusion = rows[policy_id].setdefault(Row("inclusion of endpoint set", key), {"set ids": []})
        inclusion["set ids"].append(set_id)


def _add_exceptions(ids: Collection[int], rows: Mapping[int, MutableRows]) -> None:
    for exception in PolicyException.objects.filter(policy__in=ids):
        columns = _of_organization(exception, "endpoint", "added at", "expires at", "ended at")
        rows[exception.policy_id][Row("exception", str(exception.pk))] = columns


def set_rows(organization: Organization) -> Mapping[int, Rows]:
    """The row of each of the organization's endpoint sets, by its id."""
    return {
        found.pk: {Row("endpoint set"): _of_organization(found, *_NAMED, "endpoints")}
        for found in EndpointSet.objects.filter(organization=organization)
    }


def organization_rows(organization: Organization) -> MutableRows:
    """The organization's never-allow hosts, break glasses and four-eyes setting."""
    rows: MutableRows = {}
    for host, reason in NeverAllowHost.objects.filter(organization=organization).values_list("host", "reason"):
        rows[Row("never-allow host", host)] = {"reason": reason}
    for glass in BreakGlass.objects.filter(organization=organization):
        times = _columns(glass, "started at", "ends at", "ended at")
        rows[Row("break glass", str(glass.pk))] = {"scope": glass.scope_key, **times}
    for found in FourEyes.objects.filter(organization=organization):
        rows[Row("four-eyes setting")] = _columns(found, "keys alone")
    return rows


def account_rows(organization: Organization) -> MutableRows:
    """The organization's API keys and blocklist entries, and those for everyone."""
    rows: MutableRows = {}
    for key in ApiKey.objects.filter(organization=organization):
        columns = _columns(key, "kind", "slot", "name", "digest", "clusters")
        rows[Row("API key", str(key.pk))] = {**columns, "revoked": key.revoked_at is not None}
    for entry in BlocklistEntry.objects.filter(Q(organization=organization) | Q(organization__isnull=True)):
        listed = STORE_WIDE_ENTRY if entry.organization_id is None else BLOCKLIST_ENTRY
        rows[Row(listed, entry.endpoint)] = _columns(entry, "kind", "reason")
    return rows
