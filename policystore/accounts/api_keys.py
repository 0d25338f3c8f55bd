"""API keys: creates, replaces, limits, revokes and authenticates them.

A key is `ps_<kind>_<32 characters of base62><6 of checksum>`: the prefix and checksum let secret scanners find leaked
keys and tell them from look-alikes; 32 characters of base62 are 190 bits. The database keeps a keyed hash.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import string
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.text import Truncator

from policystore.accounts.models import AccountEvent, Actor, ApiKey, KeyKind, KeySlot
from policystore.inventory.models import Organization
from policystore.policy_language.scopes import cluster_name

logger = logging.getLogger(__name__)

MOST_CLUSTERS = 100


def live(organization: Organization) -> QuerySet[ApiKey]:
    """The organization's keys that work."""
    return ApiKey.objects.filter(organization=organization, revoked_at__isnull=True)


def regenerate(*, organization: Organization, kind: KeyKind, slot: KeySlot, by: Actor) -> str:
    """Put a new key into a slot and return it. The key that it replaces stops working; the other of the pair does not.

    The new key has the limit to clusters of the one that it replaces.
    """
    with transaction.atomic():
        # Two people who regenerate at once take turns, so that the slot never holds two keys.
        organization.lock()
        current = live(organization).filter(kind=kind, slot=slot)
        replaced = dict(current.values_list("pk", "clusters"))
        current.update(revoked_at=timezone.now(), revoked_by=by.name)
        key, clear = _create(organization, kind, by, slot=slot, clusters=next(iter(replaced.values()), ""))
        details = {"api_key": _recorded(key), "revoked": list(replaced)}
        _record(key, "key regenerated" if replaced else "key created", by=by, detail=key.hint, details=details)
    return clear


class KeyNameTaken(ValueError):
    """A live management key has this name already, so the history could not tell the two apart."""


def create_management(*, organization: Organization, name: str, by: Actor) -> str:
    """Make a management key that names the person or system it is for, and return it. Raises KeyNameTaken."""
    with transaction.atomic():
        # Two owners who choose one name at once take turns.
        organization.lock()
        if live(organization).filter(kind=KeyKind.MANAGEMENT, name__iexact=name).exists():
            raise KeyNameTaken(f"A key named “{name}” already exists. Choose another name, or revoke that key.")
        key, clear = _create(organization, KeyKind.MANAGEMENT, by, name=name)
        _record(key, "key created", by=by, detail=key.hint, details={"api_key": _recorded(key)})
    return clear


def _create(organization: Organization, kind: KeyKind, by: Actor, **values: str) -> tuple[ApiKey, str]:
    """A new key as the database keeps it, and its text."""
    fresh = new_key(kind)
    key = ApiKey.objects.create(
        organization=organization,
        kind=kind,
        hint=fresh.hint,
        digest=fresh.digest,
        created_by=by.name,
        created_by_user=by.user_id,
        **values,
    )
    return key, fresh.clear


class CannotLimit(ValueError):
    """The key cannot be limited to these clusters; the text says why."""


def limit_to_clusters(*, key: ApiKey, clusters: Iterable[str], by: Actor) -> None:
    """Limit an ARC key to clusters, or lift the limit if there are none. Raises CannotLimit."""
    try:
        names = sorted({cluster_name(cluster) for cluster in clusters})
    except ValueError as error:
        raise CannotLimit(str(error)) from error
    if len(names) > MOST_CLUSTERS:
        raise CannotLimit(f"A key can be limited to at most {MOST_CLUSTERS} clusters; you entered {len(names)}.")
    with transaction.atomic():
        limited = live(key.organization).filter(pk=key.pk, kind=KeyKind.ARC).select_for_update(no_key=True).first()
        if limited is None:
            raise CannotLimit("Another owner replaced this key. Limit the new key instead.")
        if limited.cluster_names == names:
            return
        limited.organization, limited.clusters = key.organization, " ".join(names)
        limited.save(update_fields=["clusters"])
        event = "key limited" if names else "key limit lifted"
        _record(limited, event, by=by, detail=_limit_detail(limited), details={"api_key": _recorded(limited)})


def _limit_detail(key: ApiKey) -> str:
    most = AccountEvent._meta.get_field("detail").max_length or 0
    return Truncator(f"{key.hint}: {', '.join(key.cluster_names) or 'every cluster'}").chars(most)


def revoke(*, key: ApiKey, by: Actor) -> None:
    """Stop a key from working; revoking it twice changes nothing."""
    with transaction.atomic():
        if live(key.organization).filter(pk=key.pk).update(revoked_at=timezone.now(), revoked_by=by.name):
            _record(key, "key revoked", by=by, detail=key.hint, details={"revoked": [key.pk]})


def _record(key: ApiKey, event: str, *, by: Actor, detail: str, details: Mapping[str, object]) -> None:
    subject = f"{key.get_kind_display()}: {key.name or key.get_slot_display()}"
    AccountEvent.objects.record(key.organization, event, by=by, subject=subject, detail=detail, details=details)


def _recorded(key: ApiKey) -> dict[str, object]:
    """Return the values of a live key for the integrity check. The digest is keyed, so it reveals nothing."""
    return {"id": key.pk, **{name: getattr(key, name) for name in ("kind", "slot", "name", "digest", "clusters")}}


def mark_used(*, used: Mapping[int, datetime]) -> None:
    """Record when keys were last used (by key id); never moves a time backwards."""
    for key_id, at in sorted(used.items()):
        earlier = Q(last_used_at__isnull=True) | Q(last_used_at__lt=at)
        ApiKey.objects.filter(earlier, pk=key_id).update(last_used_at=at)


# `mark_used`, to the second, for a statement of PostgreSQL's that has the uses in a relation `fetches` of `key_id` and
# `at`. Writing a row at each fetch would leave many versions for the next to skip. It locks keys in the same order.
USED_IN_RELATION = """
UPDATE accounts_apikey AS k SET last_used_at = u.at
FROM (
    SELECT a.id, f.at FROM (SELECT key_id, MAX(at) AS at FROM fetches GROUP BY key_id) AS f
    JOIN accounts_apikey AS a ON a.id = f.key_id
    WHERE (a.last_used_at IS NULL OR a.last_used_at < f.at - interval '1 second') AND {condition}
    ORDER BY a.id FOR NO KEY UPDATE OF a
) AS u
WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
"""


# The last use is recorded to the minute: writing it at each call would make every read a write.
LAST_USED_STEP = timedelta(minutes=1)


def live_key(clear: str) -> ApiKey | None:
    """The key with its organization, recorded as used now; None if it is unknown, malformed or revoked."""
    if not well_formed(clear):
        return None
    digest = digest_of(clear)
    key = ApiKey.objects.select_related("organization").filter(digest=digest, revoked_at__isnull=True).first()
    if key is not None and (key.last_used_at is None or timezone.now() - key.last_used_at > LAST_USED_STEP):
        _mark_used(key)
    return key


def _mark_used(key: ApiKey) -> None:
    """Record the use now. A database that takes no writes must not stop a key from reading."""
    try:
        with transaction.atomic():
            mark_used(used={key.pk: timezone.now()})
    except DatabaseError:
        logger.exception("The use of a key could not be recorded")


BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
_WRITTEN = re.compile(r"ps_(vm|arc|mgmt)_[0-9A-Za-z]{38}")
# Two digits at a time.
_PAIRS = [first + second for first in BASE62 for second in BASE62]
_KIND_WORDS = {"vm": "vm", "arc": "arc", "management": "mgmt"}


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh key: `clear` is shown once and never stored, `hint` may be shown always, `digest` is what is kept."""

    clear: str
    hint: str
    digest: str


def new_key(kind: str) -> NewKey:
    """Make a key of this kind (`vm`, `arc` or `management`)."""
    body = f"ps_{_KIND_WORDS[kind]}_{''.join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH))}"
    clear = body + _checksum(body)
    return NewKey(clear=clear, hint=f"{clear[:-34]}…{clear[-4:]}", digest=digest_of(clear))


def well_formed(clear: str) -> bool:
    """Return True if this can be a key of this store; others are refused without asking the database."""
    if not _WRITTEN.fullmatch(clear):
        return False
    return hmac.compare_digest(_checksum(clear[:-CHECKSUM_LENGTH]), clear[-CHECKSUM_LENGTH:])


def digest_of(clear: str) -> str:
    """The keyed hash of a key, 64 hexadecimal digits. A slow password hash would cost half a second a fetch."""
    keyed = _keyed(settings.API_KEY_SECRET).copy()
    keyed.update(clear.encode())
    return keyed.hexdigest()


@lru_cache(maxsize=4)
def _keyed(secret: str) -> hmac.HMAC:
    """The hash with only the secret in it, to be copied for each key."""
    return hmac.new(secret.encode(), digestmod="sha256")


def allows_cluster(clusters: str, cluster: str) -> bool:
    """Return True if a key with this limit may be used for the cluster; an empty `cluster` names none.

    `clusters` are the names that the key is limited to, separated by spaces. A key without a limit may always be used.
    """
    return not clusters or cluster.strip() in clusters.split()


def _checksum(body: str) -> str:
    rest, last = divmod(zlib.crc32(body.encode()), len(_PAIRS))
    first, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]


def parse_authorization(header: str) -> tuple[str, str]:
    """Return the scheme in lower case and the key or token. Some clients send the key alone: the scheme is empty."""
    first, space, rest = header.strip().partition(" ")
    return (first.lower(), rest.strip()) if space else ("", first)
