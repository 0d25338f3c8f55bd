"""Sessions in the database under a digest of their key, so that a dump of it signs nobody in."""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib.sessions.backends import db
from django.contrib.sessions.base_session import AbstractBaseSession
from django.utils import timezone

# All that the column takes: 160 bits, of a key that has 165 of chance.
DIGEST_LENGTH = 40


def digest_of(session_key: str) -> str:
    """Return the digest that the database keeps of the key in a browser's cookie."""
    return hashlib.sha256(session_key.encode("utf-8", "replace")).hexdigest()[:DIGEST_LENGTH]


class SessionStore(db.SessionStore):
    """Django's sessions in the database, each looked up and kept by the digest of its key.

    `session_key` stays the key itself, for the cookie. Only what synchronous views need: the asynchronous methods are
    still the parent's.
    """

    def load(self) -> dict[str, Any]:
        """Return the session's data; an unknown or expired one is empty, and gets a new key when it is saved."""
        key = self.session_key
        known = self.model.objects.filter(session_key=digest_of(key)) if key else self.model.objects.none()
        session = known.filter(expire_date__gt=timezone.now()).first()
        if session is None:
            self._session_key = None
            return {}
        return self.decode(session.session_data)

    def exists(self, session_key: str) -> bool:
        """Return True if a session has this key, expired or not."""
        return self.model.objects.filter(session_key=digest_of(session_key)).exists()

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        """The row of this session."""
        session = super().create_model_instance(data)
        session.session_key = digest_of(session.session_key)
        return session

    def delete(self, session_key: str | None = None) -> None:
        """Delete a session: this one where none is named."""
        key = session_key or self.session_key
        if key:
            self.model.objects.filter(session_key=digest_of(key)).delete()
