"""Encrypts the secrets that the store must be able to use again."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class Undecipherable(Exception):
    """The secret was encrypted under a key that the store no longer has."""


def encrypt(clear: str) -> bytes:
    """The secret under the first of ENCRYPTION_KEYS."""
    return _box().encrypt(clear.encode())


def decrypt(hidden: bytes | memoryview) -> str:
    """The secret again. Raises Undecipherable."""
    try:
        return _box().decrypt(bytes(hidden)).decode()
    except InvalidToken as error:
        raise Undecipherable("A stored secret cannot be read; was ENCRYPTION_KEYS or SECRET_KEY changed?") from error


def _box() -> MultiFernet:
    return MultiFernet([Fernet(_derived(key)) for key in settings.ENCRYPTION_KEYS])


def _derived(key: str) -> bytes:
    derivation = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"policystore secrets at rest")
    return base64.urlsafe_b64encode(derivation.derive(key.encode()))
