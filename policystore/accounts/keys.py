"""API keys: how they are made and written, and the keyed hash by which they are known.

A key is `ps_<kind>_<32 characters of base62><6 of checksum>`: the prefix and checksum let secret scanners find leaked
keys and tell them from look-alikes; 32 characters of base62 are 190 bits.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings

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
    """Whether this could be a key of ours at all; what could not is refused without asking the database."""
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
    """The hash as far as it goes without a key to hash."""
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
