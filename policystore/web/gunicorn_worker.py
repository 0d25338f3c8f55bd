"""gunicorn's threaded worker: idle connections cost no thread, and what is not HTTP gets the store's own reply."""

from __future__ import annotations

import selectors
import time
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from policystore.web import malformed_requests

# A new connection that sends nothing for so long is closed.
IDLE_SECONDS = 10.0
# A worker that is stopping closes it after this time.
STOP_SECONDS = 1.0


class WebWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn is not typed
    """Serves the web process."""

    def enqueue_req(self, conn: Any) -> None:
        """Give the connection to a thread once its client has sent something; in gunicorn, the thread would wait."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + IDLE_SECONDS
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def murder_pending(self) -> None:
        """Close connections that sent nothing for too long."""
        if not self.alive:
            soon = time.monotonic() + STOP_SECONDS
            for connection in self.pending_conns:
                connection.timeout = min(connection.timeout, soon)
        super().murder_pending()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Reply as JSON. gunicorn would repeat the header that is malformed, also in its log, with the key in it."""
        with suppress(OSError):
            client.sendall(malformed_requests.response_to(exc))
