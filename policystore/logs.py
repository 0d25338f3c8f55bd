"""How the store logs: an event a line on standard error, and never a secret in it."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

BLOT = "…"
# Whatever their value looks like, they are blotted out.
SECRETS = (
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "API_KEY_SECRET",
    "ENCRYPTION_KEYS",
    "GITHUB_CLIENT_SECRET",
    "METRICS_TOKEN",
)
SHORTEST_SECRET = 8

# What is left of each stands in its first group.
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
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def blotted(text: str) -> str:
    """The text without keys, tokens, passwords and one-time links, and without the store's own secrets."""
    for name in SECRETS:
        for value in os.environ.get(name, "").replace(",", " ").split():
            if len(value) >= SHORTEST_SECRET:
                text = text.replace(value, BLOT)
    return _SHAPES.sub(lambda found: f"{found[found.lastgroup or 0]}{BLOT}", text)


class BlottingFormatter(logging.Formatter):
    """Writes a message as one line, whatever a client put into it, and blots secrets out of it and its traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without its traceback."""
        record.message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and its traceback below it."""
        return blotted(super().format(record))


def configuration(**levels: str) -> dict[str, Any]:
    """Logging for Django and for gunicorn; `levels` are those of single loggers, with `_` for `.` in their names."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": BlottingFormatter,
                "fmt": "{asctime} {levelname} {process} {name} {message}",
                "style": "{",
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            name.replace("_", "."): {"level": level.upper(), "handlers": [], "propagate": True}
            for name, level in levels.items()
        },
    }
