"""Policies by name: for systems with a management key, and for the action's `policy:` input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from policystore.accounts.models import ApiKey
from policystore.api.auth import bearer_token, management_key, unauthorized
from policystore.enforcers.policy import EffectivePolicy
from policystore.enforcers.registry import ENFORCERS
from policystore.inventory.models import Organization
from policystore.policies.approvals import requests as change_requests
from policystore.policies.approvals.commands import NeedsApproval
from policystore.policies.as_code import management_api, terraform_schema
from policystore.policies.errors import EditConflict, InvalidDocument, PolicyError, PolicyGone
from policystore.policies.models import ChangeRequest, Policy
from policystore.policy_language.document import read_reply
from policystore.runners import oidc
from policystore.runners.fetch import handler, recorder
from policystore.runners.fetch.handler import canonical_owner
from policystore.runners.fetch.query import policy_by_name
from policystore.web.json_api import Refused, Reply, json_object, json_reply, refusal, refuse, route, storable

ISSUER_UNAVAILABLE = refusal(
    503,
    "issuer_unavailable",
    "The token cannot be verified now, because the signing keys of its issuer cannot be fetched. Try again.",
    headers=(("Retry-After", str(oidc.PAUSE_AFTER_FAILURE_SECONDS)),),
)
NO_CONTENT = Reply(status=204, body=b"")


@route("GET", "POST", "DELETE")
def policy(request: HttpRequest, owner: str, name: str) -> Reply:
    """Read a policy with a management key or a GitHub OIDC token; create, update or delete it with the key.

    With the key and `format`, return the policy in the form of that enforcer, and how the enforcer differs from it.
    """
    owner_key = canonical_owner(owner)
    token = bearer_token(request)
    if token.count(".") == 2 and request.method in ("GET", "HEAD"):
        return _for_action(owner_key, name, token)
    key = management_key(owner_key, token)
    if request.method == "POST":
        return _save(request, key, owner, name)
    existing = _policy(key.organization, name)
    if request.method == "DELETE":
        return _delete(existing, key)
    if wanted := request.GET.get("format"):
        return _for_enforcer(existing, wanted)
    return _describe(existing, key, owner, name)


@route("POST", "DELETE")
def attachment(request: HttpRequest, owner: str, name: str) -> Reply:
    """Attach a policy to more scopes, or detach it from all."""
    key = management_key(canonical_owner(owner), bearer_token(request))
    try:
        if request.method == "DELETE":
            existing = _policy(key.organization, name)
            if management_api.detach(policy=existing, key=key):
                return NO_CONTENT
        else:
            body = json_object(request)
            existing = _policy(key.organization, name)
            scopes = terraform_schema.read_attachments(owner, body)
            change_request = management_api.attach(policy=existing, wanted=scopes, key=key)
            if change_request is not None:
                raise _needs_approval(change_request)
    except terraform_schema.InvalidBody as error:
        raise refuse(422, "invalid_body", str(error)) from error
    except PolicyError as error:
        raise _refused(error) from error
    return _describe(_policy(key.organization, name), key, owner, name)


def _for_enforcer(policy: Policy, wanted: str) -> Reply:
    enforcer = ENFORCERS.get(wanted)
    if enforcer is None:
        raise refuse(422, "unknown_format", f"The format must be one of {', '.join(ENFORCERS)}.")
    form = enforcer.compiled(EffectivePolicy.from_reply(read_reply(policy.served_reply)))
    differences = [asdict(difference) for difference in form.differences]
    return json_reply({"format": enforcer.key, "text": form.text, "differences": differences, "limits": form.limits})


def _describe(policy: Policy, key: ApiKey, owner: str, name: str) -> Reply:
    is_detached = management_api.is_pending(policy=policy, key=key)
    return json_reply(terraform_schema.describe(policy, owner=owner, name=name, is_detached=is_detached))


def _for_action(owner: str, name: str, token: str) -> Reply:
    try:
        claims = oidc.verified_claims(token)
    except oidc.TokenRefused as refused:
        raise unauthorized(str(refused)) from refused
    except oidc.IssuerUnavailable as error:
        raise Refused(ISSUER_UNAVAILABLE) from error
    if str(claims["repository_owner"]).lower() != owner or not _is_owner_id(owner, claims):
        raise unauthorized("The token belongs to a repository of another organization.")
    # The caller's workflow, not the reusable one that it may call; with its branch behind an @.
    workflow = str(claims.get("workflow_ref", "")).partition("@")[0]
    repository = str(claims.get("repository", "")).rpartition("/")[2]
    served = policy_by_name(owner, name, storable(repository), storable(workflow))
    run_id = storable(str(claims.get("run_id", "")))
    recorder.record(recorder.TokenFetch(owner, storable(repository), storable(workflow), run_id, timezone.now()))
    if served.policy_id is None:
        raise _no_policy(name)
    return handler.reply_of(served)


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
    except NeedsApproval as error:
        raise _needs_approval(change_requests.ask(change=error.change, by=by)) from error
    return _describe(saved, key, owner, name)


def _delete(policy: Policy, key: ApiKey) -> Reply:
    try:
        change_request = management_api.delete(policy=policy, key=key)
    except PolicyGone as error:
        raise _no_policy(policy.name) from error
    if change_request is not None:
        raise _needs_approval(change_request)
    return NO_CONTENT


def _policy(organization: Organization, name: str) -> Policy:
    rows = Policy.objects.select_related("organization").filter(organization=organization)
    policy = rows.filter(name_key=name.strip().lower()).first()
    if policy is None:
        raise _no_policy(name)
    return policy


def _no_policy(name: str) -> Refused:
    return refuse(404, "no_policy", f"The organization has no policy named “{name[:100]}”.")


def _refused(error: PolicyError) -> Refused:
    if isinstance(error, PolicyGone):
        return refuse(404, "no_policy", str(error))
    if isinstance(error, EditConflict):
        return refuse(409, "conflict", f"{error} Send the request again.")
    if isinstance(error, InvalidDocument):
        first = next(problem for problem in error.problems if problem.severity == "error")
        problems = [asdict(problem) for problem in error.problems]
        message = f"{error} {first.message} {first.hint}".strip()
        payload = {"error": "invalid_policy", "message": message, "problems": problems}
        return Refused(json_reply(payload, status=422))
    return refuse(422, "invalid_policy", str(error))


def _needs_approval(change_request: ChangeRequest) -> Refused:
    message = f"This needs approval and waits as change request {change_request.pk}. Send it again once it is approved."
    return refuse(409, "needs_approval", message)
