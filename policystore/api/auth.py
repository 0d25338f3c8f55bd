"""Authenticates requests with a management key."""

from __future__ import annotations

from django.http import HttpRequest

from policystore.accounts import api_keys
from policystore.accounts.api_keys import live_key
from policystore.accounts.models import ApiKey, KeyKind
from policystore.inventory.models import Organization
from policystore.runners.fetch.handler import canonical_owner
from policystore.web.json_api import Refused, refusal, refuse


def unauthorized(message: str) -> Refused:
    """The exception that ends a view with 401 and asks for a bearer token."""
    return Refused(refusal(401, "unauthorized", message, headers=(("WWW-Authenticate", "Bearer"),)))


def bearer_token(request: HttpRequest) -> str:
    """Return the token of the Authorization header. Raises Refused with 401."""
    scheme, token = api_keys.parse_authorization(request.headers.get("Authorization", ""))
    if scheme != "bearer":
        raise unauthorized("Send a management key or a GitHub OIDC token as `Bearer KEY`.")
    return token


def management_key(owner: str, token: str) -> ApiKey:
    """Return the management key `token` of the organization. Raises Refused with 401 or 403."""
    key = live_key(token)
    if key is None:
        raise unauthorized("The key is unknown or revoked. An owner can create a management key in the settings.")
    return _require_management(key, owner)


def organization_of_key(request: HttpRequest, owner: str) -> Organization:
    """Return the organization of the management key that was sent, with or without a scheme. Raises Refused."""
    key = live_key(api_keys.parse_authorization(request.headers.get("Authorization", ""))[1])
    if key is None:
        raise refuse(401, "unauthorized", "Send a management key as `Bearer KEY`.")
    return _require_management(key, owner).organization


def require_owner(key: ApiKey, owner: str) -> None:
    """Raise Refused, with 403, if the key belongs to another organization."""
    if key.organization.key != canonical_owner(owner):
        raise refuse(403, "forbidden", "This key belongs to another organization.")


def _require_management(key: ApiKey, owner: str) -> ApiKey:
    require_owner(key, owner)
    if key.kind != KeyKind.MANAGEMENT:
        raise refuse(403, "forbidden", "This is a runner key; use a management key.")
    return key
