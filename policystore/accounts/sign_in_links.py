"""One-time links that sign a person in: the first administrator's way in, and support staff's."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from policystore.accounts.models import SignInLink, User

LIFETIME = timedelta(hours=1)


class LinkRefused(Exception):
    """The link was used, has expired, or never existed; the message does not say which."""


def issue(*, user: User, lifetime: timedelta = LIFETIME) -> str:
    """Make a link's secret; earlier unused links of the person stop working."""
    secret = secrets.token_urlsafe(32)
    now = timezone.now()
    with transaction.atomic():
        SignInLink.objects.filter(user=user, used_at__isnull=True).delete()
        SignInLink.objects.create(user=user, digest=_digest(secret), expires_at=now + lifetime)
    return secret


def redeem(*, secret: str) -> User:
    """The person whom the link signs in; it never works again. Raises LinkRefused."""
    now = timezone.now()
    unused = SignInLink.objects.filter(digest=_digest(secret), used_at__isnull=True, expires_at__gt=now)
    # One UPDATE decides, so that of two people with the same link one gets in.
    if not unused.update(used_at=now):
        raise LinkRefused("This link was used already, has expired, or is not complete.")
    return SignInLink.objects.select_related("user").get(digest=_digest(secret)).user


def prune() -> int:
    """Delete links that can no longer be used; returns how many."""
    return SignInLink.objects.filter(expires_at__lt=timezone.now() - timedelta(days=1)).delete()[0]


def _digest(secret: str) -> str:
    # The secret has 256 random bits, so a plain hash cannot be guessed backwards.
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
