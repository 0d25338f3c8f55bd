"""Policies and attachments in the shape of the Terraform provider, parsed from its JSON and serialized for it.

The provider compares what it reads with its configuration, letter by letter. Names, endpoints and lists are therefore
read back in the spelling and order of the request, and what could not be read back in the same way is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policystore.inventory.models import Repository
from policystore.policies.models import Attachment, Policy, RequestedAttachments
from policystore.policy_language.document import check, read_reply, written_endpoints
from policystore.policy_language.scopes import Scope, ScopeType
from policystore.policy_language.values import SWITCH_FIELDS, SWITCHES

_SPACES = {" ": "space", "\t": "tab", "\n": "line break", "\r": "line break"}


class InvalidBody(ValueError):
    """The JSON does not say what it should; `str()` names the field and what belongs there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requested attachments: the scopes, the repositories as they are spelled, and the body to read back."""

    scopes: tuple[Scope, ...]
    repositories: tuple[str, ...]
    body: Mapping[str, Any]


def read_values(body: Mapping[str, Any]) -> dict[str, object]:
    """The keys of a policy's document that a body sets, with their values. Raises InvalidBody.

    A switch that the body leaves out stays as it is; endpoints and lockdown that it leaves out are none, since that is
    how the provider says so.
    """
    endpoints = _texts(body, "allowed_endpoints")
    for endpoint in endpoints:
        if len(endpoint.split()) != 1 or endpoint.startswith("#"):
            raise InvalidBody(
                f"allowed_endpoints: “{endpoint[:60]}” is not a single endpoint. Write host:port, for example "
                "github.com:443."
            )
    values: dict[str, object] = {"egress-policy": _text(body, "egress_policy"), "allowed-endpoints": endpoints}
    for field, key in zip(SWITCH_FIELDS, SWITCHES, strict=True):
        if body.get(field) is not None:
            values[key] = _switch(body, field)
    values["lockdown-mode"] = _lockdown(body.get("lockdown"))
    return values


def check_names(body: Mapping[str, Any], *, owner: str, name: str) -> None:
    """Refuse a body that names another policy than the address does. Raises InvalidBody.

    `owner` is the organization's key, `name` the policy's name as the address spells it.
    """
    _refuse_surrounding_space("policyName", name)
    if body.get("policyName", name) != name:
        raise InvalidBody(f"policyName is not “{name[:60]}”, the name in the address. Send the same name in both.")
    said = body.get("owner", owner)
    if not isinstance(said, str) or _owner_key(said) != owner:
        raise InvalidBody(f"owner is not “{owner}”, the organization in the address. Send the same name in both.")


def read_attachments(owner: str, body: Mapping[str, Any]) -> Wanted:
    """The scopes that a body asks to attach. Raises InvalidBody.

    `owner` is the organization as the address spells it.
    """
    scopes: list[Scope] = []
    requested: dict[str, Any] = {}
    key = _owner_key(owner)
    try:
        if (org := body.get("org")) is not None:
            if not isinstance(org, dict):
                raise InvalidBody("org is not an object.")
            requested["org"] = _read_organization(owner, org, scopes)
        clusters = _texts(body, "clusters")
        scopes += [Scope.for_cluster(key, name) for name in clusters]
    except ValueError as error:
        raise InvalidBody(str(error)) from error
    if not scopes:
        raise InvalidBody("The body names nothing to attach to: set org.apply_to_org, org.repos or clusters.")
    if clusters:
        requested["clusters"] = clusters
    repositories = tuple(repo["name"] for repo in requested.get("org", {}).get("repos", ()))
    return Wanted(tuple(dict.fromkeys(scopes)), repositories, requested)


def describe(policy: Policy, *, owner: str, name: str, is_detached: bool = False) -> dict[str, object]:
    """The policy as the provider reads it back: endpoints as they were written, attachments where there are any.

    `owner` and `name` are echoed as the request spells them. `is_detached` leaves attachments out: the client has
    detached the policy, which waits. Of a text that has errors, the endpoints are those that runners get.
    """
    described: dict[str, object] = read_reply(policy.reply)
    described |= {"owner": owner, "policy_name": name, "policyName": name}
    if check(policy.text).document is not None:
        described["allowed_endpoints"] = written_endpoints(policy.text)
    attachments = {} if is_detached else _describe_attachments(policy, owner)
    if attachments:
        described["attachments"] = attachments
    return described


def _describe_attachments(policy: Policy, owner: str) -> Mapping[str, Any]:
    # Read once: what is attached between two reads would be in one of them alone.
    scopes = [attachment.scope for attachment in Attachment.objects.filter(policy=policy).order_by("scope_key")]
    requested = RequestedAttachments.objects.filter(policy=policy).first()
    if requested is not None and set(read_attachments(owner, requested.body).scopes) == set(scopes):
        return _spelled(requested.body, owner)
    is_whole = any(scope.type == ScopeType.ORGANIZATION for scope in scopes)
    clusters = [scope.cluster for scope in scopes if scope.type == ScopeType.CLUSTER]
    repositories = _describe_repositories(policy, scopes)
    described: dict[str, Any] = {"clusters": clusters} if clusters else {}
    if is_whole or repositories:
        described["org"] = {"name": owner, "apply_to_org": is_whole, "repos": repositories}
    return described


def _spelled(body: Mapping[str, Any], owner: str) -> Mapping[str, Any]:
    """The stored request, with the organization as this request spells it."""
    return {**body, "org": {**body["org"], "name": owner}} if "org" in body else body


def _describe_repositories(policy: Policy, scopes: Sequence[Scope]) -> list[dict[str, Any]]:
    keys = dict.fromkeys(scope.repository for scope in scopes if scope.repository)
    known = Repository.objects.filter(organization=policy.organization, key__in=list(keys))
    names = dict(known.values_list("key", "name"))
    described: dict[str, dict[str, Any]] = {key: {"name": names.get(key, key), "apply_to_repo": False} for key in keys}
    for scope in scopes:
        if scope.type == ScopeType.REPOSITORY:
            described[scope.repository]["apply_to_repo"] = True
        elif scope.type == ScopeType.WORKFLOW:
            described[scope.repository].setdefault("workflows", []).append(scope.workflow)
    return list(described.values())


def _read_organization(owner: str, org: Mapping[str, Any], scopes: list[Scope]) -> dict[str, Any]:
    name, key = _text(org, "name") if org.get("name") else owner, _owner_key(owner)
    if _owner_key(name) != key:
        raise InvalidBody(f"org.name is “{name[:60]}”, but the address names “{owner}”. Send the same name in both.")
    is_whole = _switch(org, "apply_to_org")
    if is_whole:
        scopes.append(Scope.for_organization(key))
    repos = org.get("repos") or []
    if not isinstance(repos, list) or not all(isinstance(repo, dict) for repo in repos):
        raise InvalidBody("org.repos is not a list of objects.")
    return {"name": name, "apply_to_org": is_whole, "repos": [_read_repository(key, repo, scopes) for repo in repos]}


def _read_repository(owner: str, repo: Mapping[str, Any], scopes: list[Scope]) -> dict[str, Any]:
    name = _text(repo, "name")
    workflows = _texts(repo, "workflows")
    is_whole = _switch(repo, "apply_to_repo")
    if not is_whole and not workflows:
        raise InvalidBody(f"Repository “{name[:60]}”: set apply_to_repo, or name workflows.")
    scopes += [Scope.for_repository(owner, name)] if is_whole else []
    scopes += [Scope.for_workflow(owner, name, workflow) for workflow in workflows]
    return {"name": name, "apply_to_repo": is_whole} | ({"workflows": workflows} if workflows else {})


def _owner_key(owner: str) -> str:
    return owner.rsplit("::", 1)[-1].lower()


def _lockdown(value: object) -> dict[str, object] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidBody("lockdown is not an object.")
    return {"enabled": _switch(value, "enabled"), "detections": _texts(value, "detections")}


def _text(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InvalidBody(f"{field} is missing; send it as a string.")
    return _clean(field, value)


def _texts(body: Mapping[str, Any], field: str) -> list[str]:
    value = body.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidBody(f"{field} is not a list of strings.")
    return [_clean(field, item) for item in value]


def _clean(field: str, text: str) -> str:
    _refuse_surrounding_space(field, text)
    if not text.isprintable():
        raise InvalidBody(f"{field}: “{_shown(text)}” has characters that cannot be printed; remove them.")
    return text


def _refuse_surrounding_space(field: str, text: str) -> None:
    """Stored texts have no space around them, so the client would read back another text than it sent."""
    bare = text.strip()
    if bare == text or not bare:
        return
    where, character = ("leading", text[0]) if text[0].isspace() else ("trailing", text[-1])
    what = _SPACES.get(character, "white space")
    raise InvalidBody(f"{field}: “{_shown(text)}” has a {where} {what}. Write “{_shown(bare)}”.")


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text[:300])


def _switch(body: Mapping[str, Any], field: str) -> bool:
    value = body.get(field, False)
    if not isinstance(value, bool):
        raise InvalidBody(f"{field} is neither true nor false.")
    return value
