"""Policies and attachments in the shape of the Terraform provider, read from its JSON and written for it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policystore.documents.document import check, written_endpoints
from policystore.documents.scopes import Scope, ScopeType
from policystore.inventory.models import Repository
from policystore.policies.models import Attachment, Policy

SWITCHES = {
    "disable_telemetry": "disable-telemetry",
    "disable_sudo": "disable-sudo",
    "disable_sudo_and_containers": "disable-sudo-and-containers",
    "disable_file_monitoring": "disable-file-monitoring",
}


class InvalidBody(ValueError):
    """The JSON does not say what it should; `str()` names the field and what belongs there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a body asks to attach: the scopes in their order, and the repositories as they are written."""

    scopes: tuple[Scope, ...]
    repositories: tuple[str, ...]


def read_values(body: Mapping[str, Any]) -> dict[str, object]:
    """The keys of a policy's document that a body sets, with their values. Raises InvalidBody.

    A switch that the body leaves out stays as it is; endpoints and lockdown that it leaves out are none, since that is
    how the provider says so.
    """
    endpoints = _texts(body, "allowed_endpoints")
    for endpoint in endpoints:
        if len(endpoint.split()) != 1 or endpoint.strip().startswith("#"):
            raise InvalidBody(f"allowed_endpoints: “{endpoint[:60]}” is not a single endpoint; write host:port.")
    values: dict[str, object] = {
        "egress-policy": _text(body, "egress_policy"),
        "allowed-endpoints": [endpoint.strip() for endpoint in endpoints],
    }
    for field, key in SWITCHES.items():
        if body.get(field) is not None:
            values[key] = _switch(body, field)
    values["lockdown-mode"] = _lockdown(body.get("lockdown"))
    return values


def read_attachments(owner: str, body: Mapping[str, Any]) -> Wanted:
    """The scopes that a body asks to attach. Raises InvalidBody."""
    scopes: list[Scope] = []
    repositories: list[str] = []
    try:
        if body.get("org") is not None:
            _read_organization(owner, _object(body, "org"), scopes, repositories)
        scopes += [Scope.for_cluster(owner, name) for name in _texts(body, "clusters")]
    except InvalidBody:
        raise
    except ValueError as error:
        raise InvalidBody(str(error)) from error
    if not scopes:
        raise InvalidBody("The body names nothing to attach to: set org.apply_to_org, org.repos or clusters.")
    return Wanted(tuple(dict.fromkeys(scopes)), tuple(repositories))


def describe(policy: Policy) -> dict[str, object]:
    """The policy as the provider reads it back: endpoints as they were written, attachments where there are any.

    Of a text that an earlier release saved and that has errors now, the endpoints are those that runners get.
    """
    told: dict[str, object] = json.loads(policy.reply)
    if check(policy.text).document is not None:
        told["allowed_endpoints"] = written_endpoints(policy.text)
    attachments = _describe_attachments(policy)
    if attachments:
        told["attachments"] = attachments
    return told


def _describe_attachments(policy: Policy) -> dict[str, object]:
    # Read once: what is attached between two reads would be in one of them alone.
    scopes = [attachment.scope for attachment in Attachment.objects.filter(policy=policy).order_by("place", "pk")]
    by_type: defaultdict[ScopeType, list[Scope]] = defaultdict(list)
    for scope in scopes:
        by_type[scope.type].append(scope)
    told: dict[str, object] = {}
    repositories = _describe_repositories(policy, scopes)
    if by_type[ScopeType.ORGANIZATION] or repositories:
        told["org"] = {
            "name": policy.organization.login,
            "apply_to_org": bool(by_type[ScopeType.ORGANIZATION]),
            "repos": repositories,
        }
    if by_type[ScopeType.CLUSTER]:
        told["clusters"] = [scope.cluster for scope in by_type[ScopeType.CLUSTER]]
    return told


def _describe_repositories(policy: Policy, scopes: Sequence[Scope]) -> list[dict[str, Any]]:
    keys = dict.fromkeys(scope.repository for scope in scopes if scope.repository)
    known = Repository.objects.filter(organization=policy.organization, key__in=list(keys))
    names = dict(known.values_list("key", "name"))
    told: dict[str, dict[str, Any]] = {key: {"name": names.get(key, key), "apply_to_repo": False} for key in keys}
    for scope in scopes:
        if scope.type == ScopeType.REPOSITORY:
            told[scope.repository]["apply_to_repo"] = True
        elif scope.type == ScopeType.WORKFLOW:
            told[scope.repository].setdefault("workflows", []).append(scope.workflow)
    return list(told.values())


def _read_organization(owner: str, org: Mapping[str, Any], scopes: list[Scope], repositories: list[str]) -> None:
    name = _text(org, "name") if org.get("name") else owner
    if name.lower() != owner:
        raise InvalidBody(f"org.name is {name[:60]}, but the address names {owner}.")
    if _switch(org, "apply_to_org"):
        scopes.append(Scope.for_organization(owner))
    repos = org.get("repos") or []
    if not isinstance(repos, list) or not all(isinstance(repo, dict) for repo in repos):
        raise InvalidBody("org.repos is not a list of objects.")
    for repo in repos:
        repository = _text(repo, "name")
        workflows = _texts(repo, "workflows")
        whole = _switch(repo, "apply_to_repo")
        if not whole and not workflows:
            raise InvalidBody(f"Repository {repository[:60]}: set apply_to_repo, or name workflows.")
        repositories.append(repository)
        scopes += [Scope.for_repository(owner, repository)] if whole else []
        scopes += [Scope.for_workflow(owner, repository, workflow) for workflow in workflows]


def _lockdown(value: object) -> dict[str, object] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidBody("lockdown is not an object.")
    return {"enabled": _switch(value, "enabled"), "detections": _texts(value, "detections")}


def _object(body: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = body[field]
    if not isinstance(value, dict):
        raise InvalidBody(f"{field} is not an object.")
    return value


def _text(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InvalidBody(f"{field} is missing; send it as a text.")
    return _clean(value)


def _texts(body: Mapping[str, Any], field: str) -> list[str]:
    value = body.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidBody(f"{field} is not a list of texts.")
    return [_clean(item) for item in value]


def _clean(text: str) -> str:
    if not text.isprintable():
        raise InvalidBody("A text in the body has characters that cannot be printed; remove them.")
    return text


def _switch(body: Mapping[str, Any], field: str) -> bool:
    value = body.get(field, False)
    if not isinstance(value, bool):
        raise InvalidBody(f"{field} is neither true nor false.")
    return value
