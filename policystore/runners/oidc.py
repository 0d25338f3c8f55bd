"""Verifies GitHub's OIDC tokens, with which the action's `policy:` input fetches without an API key.

The signing keys of each issuer are cached, and fetched again when they are old or a token names an unknown one. Cached
keys keep working for a day while the issuer cannot be reached. A token is refused only if it is definitely invalid:
the action then goes on in block mode with no endpoints, which breaks its job.
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
from jwt.types import Options

logger = logging.getLogger(__name__)

ALGORITHM = "RS256"
KEYS_ARE_FRESH_SECONDS = 60 * 60
KEYS_ARE_GOOD_SECONDS = 24 * 60 * 60
PAUSE_BETWEEN_FETCHES_SECONDS = 30
# The action tries three times within a few seconds.
PAUSE_AFTER_FAILURE_SECONDS = 5
# Two fetches take less than the two seconds that a client of CargoWall may be kept waiting.
FETCH_TIMEOUT_SECONDS = 0.8
# How long a request waits while another one fetches the keys.
WAIT_SECONDS = 1.0
MAX_ANSWER_BYTES = 256 * 1024
LEEWAY_SECONDS = 30
MAX_TOKEN_LENGTH = 16 * 1024
REQUIRED_CLAIMS = ["exp", "iat", "iss", "aud", "repository_owner"]


class TokenRefused(Exception):
    """The token is definitely invalid; `str()` says why, in a sentence that repeats nothing of the token."""


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be fetched, so the token is neither valid nor invalid; `str()` says why."""


@dataclass(slots=True)
class _Issuer:
    keys: dict[str, Any] = field(default_factory=dict)
    fetched_at: float = float("-inf")
    tried_at: float = float("-inf")
    # Why the last fetch failed; empty if it did not.
    failure: str = ""

    def may_fetch(self, now: float) -> bool:
        """Tokens with made-up key ids must not make the store fetch the keys each time."""
        pause = PAUSE_AFTER_FAILURE_SECONDS if self.failure else PAUSE_BETWEEN_FETCHES_SECONDS
        return now - self.tried_at > pause


_issuers: dict[str, _Issuer] = {}
_lock = threading.Lock()


def verified_claims(token: str, *, audience: str = "", wait_seconds: float = WAIT_SECONDS) -> Mapping[str, Any]:
    """Return the claims of a token that a trusted issuer signed for this store, or for an audience of one enforcer, and
    that has not expired.

    It waits at most so many seconds while another request fetches the issuer's keys. Raises TokenRefused if the token
    is definitely invalid, IssuerUnavailable if that cannot be decided now.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise TokenRefused("The token is too long.")
    try:
        decoded = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenRefused("The token is not a JSON Web Token.") from error
    header, claimed = decoded["header"], decoded["payload"]
    issuer = claimed.get("iss")
    if not isinstance(issuer, str) or issuer.rstrip("/") not in settings.OIDC_ISSUERS:
        raise TokenRefused("The token is from an issuer that this store does not trust.")
    if header.get("alg") != ALGORITHM:
        raise TokenRefused(f"The token is not signed with {ALGORITHM}.")
    issuer, key_id = issuer.rstrip("/"), str(header.get("kid", ""))
    audiences = [audience] if audience else _audiences(claimed)
    if not _is_cached(issuer, key_id):
        # First without the signature: wrong claims can be refused even if the issuer cannot be reached.
        _decode(token, claimed, audiences, key=None)
    key = _key(issuer, key_id, wait_seconds)
    return _decode(token, claimed, audiences, key=key)


def _decode(token: str, claimed: Mapping[str, Any], audiences: list[str], *, key: Any) -> Mapping[str, Any]:
    """Return the claims, after verifying the signature if there is a key. Raises TokenRefused."""
    options: Options = {
        "require": REQUIRED_CLAIMS,
        "verify_signature": key is not None,
        "verify_exp": True,
        "verify_iat": True,
        "verify_nbf": True,
        "verify_aud": True,
        "verify_iss": True,
    }
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key or "",
            algorithms=[ALGORITHM],
            issuer=claimed["iss"],
            audience=audiences,
            leeway=LEEWAY_SECONDS,
            options=options,
        )
    except jwt.ExpiredSignatureError as error:
        raise TokenRefused("The token has expired.") from error
    except jwt.InvalidAudienceError as error:
        raise TokenRefused("The token is issued for a different audience.") from error
    except jwt.PyJWTError as error:
        raise TokenRefused("The token's signature or claims are invalid.") from error
    return claims


def _audiences(claimed: Mapping[str, Any]) -> list[str]:
    """The accepted audiences; without a setting, GitHub's default one, the address of the repository's owner."""
    if settings.OIDC_AUDIENCES:
        return list(settings.OIDC_AUDIENCES)
    return [f"{settings.GITHUB_URL}/{claimed.get('repository_owner', '')}"]


def clear_keys() -> None:
    """Drop the keys of all issuers."""
    with _lock:
        _issuers.clear()


def _is_cached(issuer: str, key_id: str) -> bool:
    return issuer in _issuers and key_id in _issuers[issuer].keys


def _key(issuer: str, key_id: str, wait_seconds: float) -> Any:
    """Return the issuer's key with this id. Raises TokenRefused, or IssuerUnavailable if its keys cannot be fetched."""
    if not _lock.acquire(timeout=wait_seconds):
        raise IssuerUnavailable("another request is waiting for the issuer")
    try:
        cached = _issuers.setdefault(issuer, _Issuer())
        now = time.monotonic()
        stale = now - cached.fetched_at > KEYS_ARE_FRESH_SECONDS or key_id not in cached.keys
        if stale and cached.may_fetch(now):
            cached.tried_at = now
            _refresh(issuer, cached, now)
        if now - cached.fetched_at > KEYS_ARE_GOOD_SECONDS:
            cached.keys = {}
        key, failure = cached.keys.get(key_id), cached.failure
    finally:
        _lock.release()
    if key is not None:
        return key
    if failure:
        raise IssuerUnavailable(failure)
    raise TokenRefused("The token is signed with a key that its issuer does not publish.")


def published_keys(issuer: str) -> dict[str, Any]:
    """Fetch the signing keys of an issuer, by their ids. Raises IssuerUnavailable."""
    try:
        address = _get_json(f"{issuer}/.well-known/openid-configuration")["jwks_uri"]
        if urlsplit(address)[:2] != urlsplit(issuer)[:2]:
            raise ValueError("the keys are published on another host than the issuer's")
        published = jwt.PyJWKSet.from_dict(_get_json(address))
    except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise IssuerUnavailable(str(error)) from error
    return {key.key_id: key.key for key in published.keys if key.key_id and key.algorithm_name == ALGORITHM}


def _refresh(issuer: str, cached: _Issuer, now: float) -> None:
    try:
        cached.keys = published_keys(issuer)
    except IssuerUnavailable as error:
        logger.warning("The keys of %s could not be fetched: %s", issuer, error)
        cached.failure = str(error) or type(error).__name__
        return
    cached.fetched_at, cached.failure = now, ""


def _get_json(address: str) -> Any:
    if urlsplit(address).scheme not in ("https", "http"):
        raise ValueError("the address is not an HTTP address")
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310 the scheme is checked
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_SECONDS) as response:  # noqa: S310
        return json.loads(response.read(MAX_ANSWER_BYTES))
