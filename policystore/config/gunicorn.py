"""How gunicorn serves the web process.

Threads, since pages and telemetry mostly wait for the database. In production a proxy that buffers slow clients stands
in front.
"""

from __future__ import annotations

import gc
import os
import runpy
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from policystore.config import env
from policystore.db import connection_slots
from policystore.operations.processes import end_with_starter
from policystore.web import metrics, request_log

os.environ.setdefault("POLICYSTORE_MODE", env.PRODUCTION)
# A missing or unsafe setting ends the start here, in one line and before anything is loaded.
runpy.run_path(str(Path(__file__).with_name("settings.py")))


class Logger(GunicornLogger):  # type: ignore[misc]  # gunicorn is not typed
    """Enables the access log only if it has a destination.

    gunicorn enables it as soon as logging is configured, and then formats a line per request that is never written,
    which costs a tenth of a fetch.
    """

    @property
    def access_log_enabled(self) -> bool:
        """True if a line is formatted for each request."""
        return bool(self.cfg.accesslog)


workers = env.integer("WEB_CONCURRENCY", default=2, least=1)
worker_class = "policystore.web.gunicorn_worker.WebWorker"
threads = connection_slots.WEB_THREADS
# The proxy keeps the connections to browsers.
keepalive = 0
# Loaded once and forked: a reload by HUP starts new processes immediately, and no fetch waits for them.
preload_app = True
timeout = 30
graceful_timeout = 15
proc_name = "policystore"

# Workers touch a file to show that they are alive; on a busy disk they would seem dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None  # noqa: S108

# A workflow's name and the other parameters of a fetch may fill a long line.
limit_request_line = 8190

# gunicorn trusts no forwarded header; TRUST_FORWARDED_HEADERS decides whether Django does.
forwarded_allow_ips = ""

# The store is controlled by signals only.
control_socket_disable = True

accesslog = None
errorlog = "-"
logger_class = Logger
loglevel = env.choice("GUNICORN_LOG_LEVEL", ("debug", "info", "warning", "error", "critical"), default="warning")
logconfig_dict = request_log.configuration(gunicorn_error=loglevel)


def on_starting(server: Any) -> None:
    """The parent process starts; its workers will share their counters."""
    metrics.share_between_workers()


def when_ready(server: Any) -> None:
    """The parent process is about to start its workers, which share its loaded code."""
    end_with_starter()
    # Loaded code stays: collecting garbage in it would sometimes delay a fetch by a tenth of a second, and give each
    # worker its own copy of the memory pages.
    gc.collect()
    gc.freeze()
