"""What every request passes first and last: it gets an id, is counted, and leaves one line in the log.

It stands before Django, so that what is answered there is told of, too.
"""

from __future__ import annotations

import logging
import random
import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from policystore.web import logs, metrics

logger = logging.getLogger("policystore.access")

WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")
FAILED = b'{"error":"internal_error","message":"The store failed to answer; its log says why."}'

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class FrontDoor:
    """A WSGI application around the store's own; `log` says whether requests leave lines."""

    def __init__(self, application: Application, *, log: bool = True) -> None:
        self._application = application
        self._log = log

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        request_id = request_id_of(environ)
        # Django replaces it in the environ, decoded.
        path = environ.get("PATH_INFO", "")
        answered = [500]

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            answered[0] = int(status[:3])
            return start_response(status, [*headers, ("X-Request-Id", request_id)], *exc_info)

        before = logs.REQUEST_ID.set(request_id)
        try:
            return self._answer(environ, start)
        finally:
            self._tell(environ, path, request_id, answered[0], time.perf_counter() - began)
            logs.REQUEST_ID.reset(before)

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        try:
            return self._application(environ, start)
        except Exception:
            logger.exception("A request failed before it had an answer")
            headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
            # With it, what was begun but not sent yet may still be replaced.
            start("500 Internal Server Error", headers, sys.exc_info())
            return [FAILED]

    def _tell(self, environ: dict[str, Any], path: str, request_id: str, status: int, seconds: float) -> None:
        metrics.count_request(path, status, seconds)
        if not self._log or not logger.isEnabledFor(logging.INFO):
            return
        told = path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")
        told = logs.blotted(told) if logs.is_suspicious(told) else told
        method = environ.get("REQUEST_METHOD", "")
        logger.handle(logs.Access(time.time(), request_id, method, told, status, seconds * 1000))


def request_id_of(environ: dict[str, Any]) -> str:
    """The id that the client or its proxy gave, if it is well-formed and no secret; else a new one."""
    given: str = environ.get("HTTP_X_REQUEST_ID", "")
    if given and WELL_FORMED.fullmatch(given) and not logs.is_suspicious(given):
        return given
    # Unlike all others, but no secret: one from the system would be a system call more for each request.
    return f"{random.getrandbits(128):032x}"
