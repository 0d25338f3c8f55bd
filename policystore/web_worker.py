"""gunicorn's threaded worker, with the store's own reply to what is not HTTP."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from policystore import unreadable


class WebWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn is not typed
    """Serves the web process."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Reply as JSON. gunicorn would repeat the header that is malformed, also in its log, with the key in it."""
        with suppress(OSError):
            client.sendall(unreadable.response_to(exc))
