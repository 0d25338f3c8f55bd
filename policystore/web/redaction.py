"""Redacts secrets in what the store logs and prints."""

from __future__ import annotations

import os
import re

REDACTED = "…"
# The values of these variables are redacted, whatever they look like.
SECRETS = (
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "API_KEY_SECRET",
    "HISTORY_SIGNING_SECRET",
    "ENCRYPTION_KEYS",
    "GITHUB_CLIENT_SECRET",
    "METRICS_TOKEN",
)
MIN_SECRET_LENGTH = 8

# The first group of each is what remains.
_SHAPES = re.compile(
    "|".join(
        f"(?:{shape})"
        for shape in (
            r"\b(?P<key>ps_[a-z]{2,4}_)[0-9A-Za-z_-]{8,}",
            r"(?P<link>/sign-in/link/)[^/\s\"'?]+",
            r"(?P<scheme>\b(?i:vm-api-key|bearer|basic)\s+)[^\s\"',]{8,}",
            r"(?P<account>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)",
            r"(?P<parameter>\b(?i:code|state|password|client_secret|access_token|id_token|token|secret)=)[^\s&\"']+",
            r"\b(?P<github>gh[a-z]_|github_pat_)[0-9A-Za-z_]{16,}",
            r"\b(?P<slack>xox[a-z]-|hooks\.slack\.com/services/)[0-9A-Za-z/-]{8,}",
            r"\b(?P<token>eyJ)[\w-]{8,}\.[\w-]+\.[\w-]*",
        )
    )
)
# Printable ASCII without : and =. If such text has none of the marks, it has none of the shapes either. This is fifty
# times as fast as looking for the shapes.
_PLAIN = re.compile(r"[!-9;<>-~]*")
_MARKED_BY_UNDERSCORE = re.compile(r"ps_|gh[a-z]_|github_pat_")


def redact(text: str) -> str:
    """Return the text without keys, tokens, passwords and one-time links, and without the store's own secrets."""
    for name in SECRETS:
        for value in os.environ.get(name, "").replace(",", " ").split():
            if len(value) >= MIN_SECRET_LENGTH:
                text = text.replace(value, REDACTED)
    return _SHAPES.sub(lambda match: f"{match[match.lastgroup or 0]}{REDACTED}", text)


def may_contain_secret(text: str) -> bool:
    """Return False if text without spaces, such as a path, has no secret that is known by its shape; it is fast."""
    return (
        not _PLAIN.fullmatch(text)
        or ("_" in text and _MARKED_BY_UNDERSCORE.search(text) is not None)
        or "/link/" in text
        or "services/" in text
        or "xox" in text
        or "eyJ" in text
    )
