"""Finds the API key that a system sent, for the routes that are not the policy fetch."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import DatabaseError, transaction
from django.utils import timezone

from policystore.accounts import keys
from policystore.accounts.actions import api_keys
from policystore.accounts.models import ApiKey

logger = logging.getLogger(__name__)

# Last use is told to the minute; writing it at each call would make every read a write.
LAST_USED_STEP = timedelta(minutes=1)


def live_key(clear: str) -> ApiKey | None:
    """The key with its organization, noted as used now; None for a key that is unknown, malformed or revoked."""
    if not keys.well_formed(clear):
        return None
    digest = keys.digest_of(clear)
    key = ApiKey.objects.select_related("organization").filter(digest=digest, revoked_at__isnull=True).first()
    if key is not None and (key.last_used_at is None or timezone.now() - key.last_used_at > LAST_USED_STEP):
        _mark_used(key)
    return key


def _mark_used(key: ApiKey) -> None:
    """Note the use now. A database that takes no writes must not keep a key from reading."""
    try:
        with transaction.atomic():
            api_keys.mark_used(used={key.pk: timezone.now()})
    except DatabaseError:
        logger.exception("The use of a key could not be noted")
