"""Logs events and requests with structlog: one line each on standard error, as text or JSON, without secrets.

`RequestLog` wraps the store's WSGI application, so that it also covers what is answered before Django.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

import structlog
from structlog.types import EventDict, Processor

from policystore.config import env
from policystore.web import metrics
from policystore.web.json_api import INTERNAL_ERROR
from policystore.web.redaction import may_contain_secret, redact

logger = logging.getLogger("policystore.access")

# The id of the request that is being answered; empty outside of one.
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")
VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class RequestLog:
    """A WSGI application that gives each request an id, counts it, and logs it unless `log` is False."""

    def __init__(self, application: Application, *, log: bool = True) -> None:
        self._application = application
        self._log = _request_logger() if log else None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        request_id = request_id_of(environ)
        # Django replaces it in the environ by a decoded one.
        path = environ.get("PATH_INFO", "")
        answered = [500]

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            answered[0] = int(status[:3])
            return start_response(status, [*headers, ("X-Request-Id", request_id)], *exc_info)

        before = REQUEST_ID.set(request_id)
        try:
            return self._answer(environ, start)
        finally:
            seconds = time.perf_counter() - began
            metrics.count_request(path, answered[0], seconds)
            if self._log:
                method = environ.get("REQUEST_METHOD", "")
                answer = {"status": answered[0], "duration_ms": round(seconds * 1000, 2)}
                self._log.info("request", request_id=request_id, method=method, path=path, **answer)
            REQUEST_ID.reset(before)

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        try:
            return self._application(environ, start)
        except Exception:
            logger.exception("A request failed before it had an answer")
            headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
            # With exc_info, a response that was started but not sent yet may still be replaced.
            start("500 Internal Server Error", headers, sys.exc_info())
            return [INTERNAL_ERROR.body]


def request_id_of(environ: dict[str, Any]) -> str:
    """Return the id that the client or its proxy gave, if it is valid and not a secret; otherwise a new one."""
    given: str = environ.get("HTTP_X_REQUEST_ID", "")
    if given and VALID_REQUEST_ID.fullmatch(given) and not may_contain_secret(given):
        return given
    # Unique, but not secret: asking the system for one would cost each request a system call.
    return f"{random.getrandbits(128):032x}"


class _LineFormatter(structlog.stdlib.ProcessorFormatter):
    """Formats what any logger of the process logs."""

    def __init__(self, form: str) -> None:
        super().__init__(processors=[_record_fields, RENDERERS[form]])


def configuration(**levels: str) -> dict[str, Any]:
    """Return the logging configuration of every process.

    `levels` are the levels of single loggers, with `_` in place of `.` in their names.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {form: {"()": _LineFormatter, "form": form} for form in RENDERERS},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": _chosen_form()}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            name.replace("_", "."): {"level": level.upper(), "handlers": [], "propagate": True}
            for name, level in levels.items()
        },
    }


def _chosen_form() -> str:
    return env.choice("LOG_FORMAT", tuple(RENDERERS), default="json" if env.mode() == env.PRODUCTION else "text")


def _request_logger() -> Any:
    """A logger for requests that does not pass through the standard library: 12 µs a line instead of 53."""
    processors: list[Processor] = [_request_fields, RENDERERS[_chosen_form()]]
    return structlog.wrap_logger(structlog.WriteLogger(sys.stderr), processors=processors).bind()


def _request_fields(_: Any, __: str, event: EventDict) -> EventDict:
    del event["event"]
    path = event["path"]
    path = path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")
    event["path"] = redact(path) if may_contain_secret(path) else path
    return {**_common_fields(time.time(), "INFO", logger.name, os.getpid()), **event}


def _record_fields(_: Any, __: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    fields = _common_fields(record.created, record.levelname, record.name, record.process)
    fields["request_id"] = REQUEST_ID.get()
    fields["message"] = redact(event["event"])
    if exc_info := event.get("exc_info"):
        fields["exception"] = redact(logging.Formatter().formatException(exc_info))
    return fields


def _common_fields(at: float, level: str, name: str, process: int | None) -> dict[str, Any]:
    return {"time": at, "level": level, "logger": name, "process": process}


def _json(_: Any, __: str, fields: EventDict) -> str:
    at = fields["time"]
    fields["time"] = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03d}Z"
    return _ENCODER.encode(fields)


def _text(_: Any, __: str, fields: EventDict) -> str:
    at = fields["time"]
    begins = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))},{int(at % 1 * 1000):03d}"
    message = fields.get("message") or "{method} {path} {status} {duration_ms:.1f} ms".format(**fields)
    # Whatever a client sent, the message stays on one line.
    message = _CONTROL.sub(lambda match: repr(match[0])[1:-1], message)
    line = f"{begins} {fields['level']} {fields['process']} {fields['logger']} {message}"
    line += f" request_id={fields['request_id']}" if fields["request_id"] else ""
    return f"{line}\n{fields['exception']}" if "exception" in fields else line


RENDERERS = {"text": _text, "json": _json}
