"""Policies by name: for systems with a management key, and for the action's `policy:` input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from policystore.accounts.api_keys import live_key
from policystore.accounts.models import ApiKey, KeyKind
from policystore.inventory.models import Organization
from policystore.policies.approvals import requests as change_requests
from policystore.policies.approvals.rules import NeedsApproval
from policystore.policies.errors import EditConflict, InvalidDocument, PolicyError, PolicyGone
from policystore.policies.management_api import actions as management_api
from policystore.policies.management_api import terraform_schema
from policystore.policies.models import ChangeRequest, Policy
from policystore.policy_language.problems import Problem
from policystore.runners import fetch, oidc, recorder, resolution
from policystore.runners.fetch import canonical_owner
from policystore.runners.http import Refused, json_object, refuse, route, storable
from policystore.runners.responses import Reply, json_reply, refusal

ISSUER_AWAY = refusal(
    503,
    "issuer_unavailable",
    "The token cannot be verified now, because the signing keys of its issuer cannot be fetched. Try again.",
    headers=(("Retry-After", str(oidc.PAUSE_AFTER_FAILURE_SECONDS)),),
)
NO_CONTENT = Reply(status=204, body=b"")


@route("GET", "POST", "DELETE")
def policy(request: HttpRequest, owner: str, name: str) -> Reply:
    """Read a policy with a management key or a GitHub OIDC token; create, update or delete it with the key."""
    key_of_owner = canonical_owner(owner)
    token = _bearer(request)
    if token.count(".") == 2 and request.method in ("GET", "HEAD"):
        return _for_action(key_of_owner, name, token)
    key = _management_key(key_of_owner, token)
    if request.method == "POST":
        return _save(request, key, owner, name)
    found = _policy(key.organization, name)
    if request.method == "DELETE":
        return _delete(found, key)
    return _described(found, key, owner, name)


@route("POST", "DELETE")
def attachment(request: HttpRequest, owner: str, name: str) -> Reply:
    """Attach a policy to more scopes, or detach it from all."""
    key = _management_key(canonical_owner(owner), _bearer(request))
    try:
        if request.method == "DELETE":
            found = _policy(key.organization, name)
            if management_api.detach(policy=found, key=key):
                return NO_CONTENT
        else:
            body = json_object(request)
            found = _policy(key.organization, name)
            wanted = terraform_schema.read_attachments(owner, body)
            waiting = management_api.attach(policy=found, wanted=wanted, key=key)
            if waiting is not None:
                raise _waits(waiting)
    except terraform_schema.InvalidBody as error:
        raise refuse(422, "invalid_body", str(error)) from error
    except PolicyError as error:
        raise _refused(error) from error
    return _described(_policy(key.organization, name), key, owner, name)


def _described(found: Policy, key: ApiKey, owner: str, name: str) -> Reply:
    is_detached = management_api.is_pending(policy=found, key=key)
    return json_reply(terraform_schema.describe(found, owner=owner, name=name, is_detached=is_detached))


def _bearer(request: HttpRequest) -> str:
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized("Send a management key or a GitHub OIDC token as `Bearer KEY`.")
    return token.strip()


def _management_key(owner: str, token: str) -> ApiKey:
    key = live_key(token)
    if key is None:
        raise _unauthorized("The key is unknown or revoked; an owner makes management keys in the settings.")
    if key.organization.key != owner:
        raise refuse(403, "forbidden", "This key belongs to another organization.")
    if key.kind != KeyKind.MANAGEMENT:
        raise refuse(403, "forbidden", "This is a runner key; use a management key.")
    return key


def _for_action(owner: str, name: str, token: str) -> Reply:
    try:
        claims = oidc.verified_claims(token)
    except oidc.TokenRefused as refused:
        raise _unauthorized(str(refused)) from refused
    except oidc.IssuerAway as away:
        raise Refused(ISSUER_AWAY) from away
    if str(claims["repository_owner"]).lower() != owner or not _is_owner_id(owner, claims):
        raise _unauthorized("The token belongs to a repository of another organization.")
    # The caller's workflow, not the reusable one that it may call; with its branch behind an @.
    workflow = str(claims.get("workflow_ref", "")).partition("@")[0]
    repository = str(claims.get("repository", "")).rpartition("/")[2]
    served = resolution.resolve_named(owner, name, storable(repository), storable(workflow))
    run_id = storable(str(claims.get("run_id", "")))
    recorder.record(recorder.TokenFetch(owner, storable(repository), storable(workflow), run_id, timezone.now()))
    if served.policy_id is None:
        raise _no_policy(name)
    return fetch.reply_of(served)


def _is_owner_id(owner: str, claims: Mapping[str, Any]) -> bool:
    """False if GitHub's id of the token's owner is not the organization's: another account took over its old name."""
    known = Organization.objects.filter(key=owner).values_list("github_id", flat=True).first()
    claimed = claims.get("repository_owner_id")
    return known is None or claimed is None or str(claimed) == str(known)


def _save(request: HttpRequest, key: ApiKey, owner: str, name: str) -> Reply:
    body = json_object(request)
    by = management_api.actor_of(key)
    try:
        terraform_schema.check_names(body, owner=key.organization.key, name=name)
        values = terraform_schema.read_values(body)
        saved = management_api.save(organization=key.organization, name=name, values=values, by=by)
    except terraform_schema.InvalidBody as error:
        raise refuse(422, "invalid_body", str(error)) from error
    except PolicyError as error:
        raise _refused(error) from error
    except NeedsApproval as waiting:
        raise _waits(change_requests.ask(change=waiting.change, by=by)) from waiting
    return _described(saved, key, owner, name)


def _delete(found: Policy, key: ApiKey) -> Reply:
    try:
        waiting = management_api.delete(policy=found, key=key)
    except PolicyGone as gone:
        raise _no_policy(found.name) from gone
    if waiting is not None:
        raise _waits(waiting)
    return NO_CONTENT


def _policy(organization: Organization, name: str) -> Policy:
    rows = Policy.objects.select_related("organization").filter(organization=organization)
    found = rows.filter(name_key=name.strip().lower()).first()
    if found is None:
        raise _no_policy(name)
    return found


def _unauthorized(message: str) -> Refused:
    return Refused(refusal(401, "unauthorized", message, headers=(("WWW-Authenticate", "Bearer"),)))


def _no_policy(name: str) -> Refused:
    return refuse(404, "no_policy", f"The organization has no policy named {name[:100]}.")


def _refused(error: PolicyError) -> Refused:
    if isinstance(error, PolicyGone):
        return refuse(404, "no_policy", str(error))
    if isinstance(error, EditConflict):
        return refuse(409, "conflict", f"{error} Send the request again.")
    if isinstance(error, InvalidDocument):
        first = next(problem for problem in error.problems if problem.severity == "error")
        problems = [_problem(problem) for problem in error.problems]
        told = {"error": "invalid_policy", "message": f"{error} {first.message} {first.hint}".strip()}
        return Refused(json_reply({**told, "problems": problems}, status=422))
    return refuse(422, "invalid_policy", str(error))


def _waits(asked: ChangeRequest) -> Refused:
    message = f"This needs approval and waits as change request {asked.pk}. Send it again once it is approved."
    return refuse(409, "needs_approval", message)


def _problem(problem: Problem) -> dict[str, object]:
    return {
        "severity": problem.severity,
        "line": problem.line,
        "column": problem.column,
        "code": problem.code,
        "message": problem.message,
        "hint": problem.hint,
    }
