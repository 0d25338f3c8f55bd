"""Checks GitHub's OIDC tokens, by which the action's `policy:` input asks without an API key.

The signing keys of each issuer are remembered and fetched anew when they are old or a token names an unknown one; keys
that were good keep working for a day while the issuer is away.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import jwt
from django.conf import settings

logger = logging.getLogger(__name__)

ALGORITHM = "RS256"
KEYS_ARE_FRESH_SECONDS = 60 * 60
KEYS_ARE_GOOD_SECONDS = 24 * 60 * 60
PAUSE_BETWEEN_FETCHES_SECONDS = 30
FETCH_TIMEOUT_SECONDS = 1.0
MAX_ANSWER_BYTES = 256 * 1024
LEEWAY_SECONDS = 30
MAX_TOKEN_LENGTH = 16 * 1024


class TokenRefused(Exception):
    """The token proves nothing; `str()` says why, in a sentence that repeats nothing of it."""


class IssuerAway(Exception):
    """An issuer's keys cannot be had; `str()` says why."""


@dataclass(slots=True)
class _Issuer:
    keys: dict[str, Any] = field(default_factory=dict)
    fetched_at: float = float("-inf")
    tried_at: float = float("-inf")


_issuers: dict[str, _Issuer] = {}
_lock = threading.Lock()


def verified_claims(token: str) -> Mapping[str, Any]:
    """The claims of a token that a known issuer signed for this store and that has not expired. Raises TokenRefused."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise TokenRefused("The token is too long.")
    try:
        header = jwt.get_unverified_header(token)
        claimed = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenRefused("This is no JSON Web Token.") from error
    issuer = claimed.get("iss")
    if not isinstance(issuer, str) or issuer.rstrip("/") not in settings.OIDC_ISSUERS:
        raise TokenRefused("The token is from an issuer that this store does not trust.")
    if header.get("alg") != ALGORITHM:
        raise TokenRefused(f"The token is not signed with {ALGORITHM}.")
    key = _key(issuer.rstrip("/"), str(header.get("kid", "")))
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            issuer=issuer,
            audience=_audiences(claimed),
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "iss", "aud", "repository_owner"]},
        )
    except jwt.ExpiredSignatureError as error:
        raise TokenRefused("The token has expired.") from error
    except jwt.InvalidAudienceError as error:
        raise TokenRefused("The token is meant for somebody else.") from error
    except jwt.PyJWTError as error:
        raise TokenRefused("The token's signature or claims are wrong.") from error
    return claims


def _audiences(claimed: Mapping[str, Any]) -> list[str]:
    """Where no audience is set, GitHub's default one: the address of the repository's owner."""
    if settings.OIDC_AUDIENCES:
        return list(settings.OIDC_AUDIENCES)
    return [f"{settings.GITHUB_URL}/{claimed.get('repository_owner', '')}"]


def forget_keys() -> None:
    """Drop the keys of all issuers."""
    with _lock:
        _issuers.clear()


def _key(issuer: str, key_id: str) -> Any:
    with _lock:
        known = _issuers.setdefault(issuer, _Issuer())
        now = time.monotonic()
        stale = now - known.fetched_at > KEYS_ARE_FRESH_SECONDS or key_id not in known.keys
        # Tokens with made-up key ids must not make the store ask the issuer each time.
        if stale and now - known.tried_at > PAUSE_BETWEEN_FETCHES_SECONDS:
            known.tried_at = now
            _refresh(issuer, known, now)
        if now - known.fetched_at > KEYS_ARE_GOOD_SECONDS:
            known.keys = {}
        key = known.keys.get(key_id)
    if key is None:
        raise TokenRefused("The token is signed with a key that its issuer does not publish.")
    return key


def published_keys(issuer: str) -> dict[str, Any]:
    """The signing keys that an issuer publishes now, by their ids. Raises IssuerAway."""
    try:
        address = _get_json(f"{issuer}/.well-known/openid-configuration")["jwks_uri"]
        if urlsplit(address)[:2] != urlsplit(issuer)[:2]:
            raise ValueError("the keys are published on another host than the issuer's")
        published = jwt.PyJWKSet.from_dict(_get_json(address))
    except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise IssuerAway(str(error)) from error
    return {key.key_id: key.key for key in published.keys if key.key_id and key.algorithm_name == ALGORITHM}


def _refresh(issuer: str, known: _Issuer, now: float) -> None:
    try:
        known.keys = published_keys(issuer)
    except IssuerAway as error:
        logger.warning("The keys of %s could not be fetched: %s", issuer, error)
        return
    known.fetched_at = now


def _get_json(address: str) -> Any:
    if urlsplit(address).scheme not in ("https", "http"):
        raise ValueError("the address is not one of the web")
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310 the scheme is checked
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_SECONDS) as response:  # noqa: S310
        return json.loads(response.read(MAX_ANSWER_BYTES))
