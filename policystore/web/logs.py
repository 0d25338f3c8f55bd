"""How the store logs: an event a line on standard error, as text or JSON, and never a secret in it."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from policystore.config import env

FORMATS = ("text", "json")
# The request that is being answered; empty outside of one.
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")

BLOT = "…"
# Whatever their value looks like, they are blotted out.
SECRETS = (
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "API_KEY_SECRET",
    "HISTORY_SIGNING_SECRET",
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
# Printable ASCII without : and =. Such text without any of the marks has none of the shapes; fifty times as fast as
# looking for them.
_PLAIN = re.compile(r"[!-9;<>-~]*")
_MARKED_BY_UNDERSCORE = re.compile(r"ps_|gh[a-z]_|github_pat_")
_LINE = "{asctime} {levelname} {process} {name} {message}"
_quoted = json.encoder.encode_basestring_ascii
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def blotted(text: str) -> str:
    """The text without keys, tokens, passwords and one-time links, and without the store's own secrets."""
    for name in SECRETS:
        for value in os.environ.get(name, "").replace(",", " ").split():
            if len(value) >= SHORTEST_SECRET:
                text = text.replace(value, BLOT)
    return _SHAPES.sub(lambda found: f"{found[found.lastgroup or 0]}{BLOT}", text)


def is_suspicious(text: str) -> bool:
    """Whether text without spaces, such as a path, may have a secret in it that is known by its shape."""
    return (
        not _PLAIN.fullmatch(text)
        or ("_" in text and _MARKED_BY_UNDERSCORE.search(text) is not None)
        or "/link/" in text
        or "services/" in text
        or "xox" in text
        or "eyJ" in text
    )


class Access(logging.LogRecord):
    """A request that was answered at `at` (Unix time, in seconds); `path` has no query and no secret."""

    def __init__(self, at: float, request_id: str, method: str, path: str, status: int, milliseconds: float) -> None:
        # Setting the attributes that all records share takes longer than the rest of a line.
        self.__dict__.update(_ALIKE)
        self.created = at
        self.msecs = int(at % 1 * 1000)
        self.process = os.getpid()
        self.request_id = request_id
        self.method = method
        self.path = path
        self.status = status
        self.milliseconds = milliseconds

    def getMessage(self) -> str:
        """Return the request and its answer, for handlers that use another formatter."""
        return f"{self.method} {self.path} {self.status} {self.milliseconds:.1f} ms"


_ALIKE = vars(logging.LogRecord("policystore.access", logging.INFO, __file__, 0, "", None, None))


class BlottingFormatter(logging.Formatter):
    """Writes a message as one line, whatever a client put into it, and blots secrets out of it and its traceback."""

    def __init__(self) -> None:
        super().__init__(_LINE, style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without its traceback."""
        record.message = _CONTROL.sub(_escaped, record.message)
        request_id = REQUEST_ID.get()
        return (
            f"{super().formatMessage(record)} request_id={request_id}" if request_id else super().formatMessage(record)
        )

    def format(self, record: logging.LogRecord) -> str:
        """The line, and its traceback below it."""
        if isinstance(record, Access):
            return _as_text(record)
        return blotted(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The time of a record, here."""
        return _here(record.created)


def _as_text(record: Access) -> str:
    # There is no secret in it, and the formatter's own way to the same line takes twenty times as long.
    message = _CONTROL.sub(_escaped, f"{record.method} {record.path}")
    written = _LINE.format(
        asctime=_here(record.created),
        levelname=record.levelname,
        process=record.process,
        name=record.name,
        message=f"{message} {record.status} {record.milliseconds:.1f} ms",
    )
    return f"{written} request_id={record.request_id}"


def _escaped(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _here(at: float) -> str:
    return f"{_second_here(int(at))},{int(at % 1 * 1000):03d}"


@lru_cache(maxsize=2)
def _second_here(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


class JsonFormatter(logging.Formatter):
    """Writes an event as one line of JSON, without a secret in any of its texts."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; access lines are put together by hand, since fetches wait for them."""
        begins = f'"level":"{record.levelname}","logger":"{record.name}","process":{record.process or 0}'
        if isinstance(record, Access):
            return f'{{"time":"{_utc(record.created)}",{begins},{_as_json(record)}}}'
        told = {"message": blotted(record.getMessage())}
        if record.exc_info:
            told["exception"] = blotted(self.formatException(record.exc_info))
        return f'{{"time":"{_utc(record.created)}",{begins},"request_id":"{REQUEST_ID.get()}",{json.dumps(told)[1:]}'


def _utc(at: float) -> str:
    return f"{_second_in_utc(int(at))}.{int(at % 1 * 1000):03d}Z"


@lru_cache(maxsize=2)
def _second_in_utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _as_json(record: Access) -> str:
    return (
        f'"request_id":"{record.request_id}","method":{_quoted(record.method)},"path":{_quoted(record.path)},'
        f'"status":{record.status},"duration_ms":{record.milliseconds:.2f}'
    )


def configuration(**levels: str) -> dict[str, Any]:
    """Logging for Django and for gunicorn; `levels` are those of single loggers, with `_` for `.` in their names."""
    # Nobody is told of them, and looking them up takes longer than the rest of a record.
    logging.logThreads = logging.logMultiprocessing = False
    production = env.mode() == env.PRODUCTION
    chosen = env.choice("LOG_FORMAT", FORMATS, default="json" if production else "text")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"()": BlottingFormatter},
            "json": {"()": JsonFormatter},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": chosen}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            name.replace("_", "."): {"level": level.upper(), "handlers": [], "propagate": True}
            for name, level in levels.items()
        },
    }
