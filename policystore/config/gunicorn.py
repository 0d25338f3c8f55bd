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
    """Takes the access log for wanted where it has a place to go; gunicorn does as soon as logging is configured, and
    then makes a line for each request for nothing, which costs a tenth of a fetch."""

    @property
    def access_log_enabled(self) -> bool:
        """Whether a line is made for each request."""
        return bool(self.cfg.accesslog)


workers = env.integer("WEB_CONCURRENCY", default=2, least=1)
worker_class = "policystore.web.gunicorn_worker.WebWorker"
threads = connection_slots.WEB_THREADS
# Connections to browsers are the proxy's to keep.
keepalive = 0
# Loaded once and forked: a reload by HUP has its new processes at once, and no fetch waits for them to start.
preload_app = True
timeout = 30
graceful_timeout = 15
proc_name = "policystore"

# Workers show that they live by touching a file; on a disk that is busy they would seem dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None  # noqa: S108

# A workflow's name and the other parameters of a fetch may fill a long line.
limit_request_line = 8190

# Whether X-Forwarded-Proto is believed is TRUST_FORWARDED_HEADERS' to say, for Django; gunicorn believes nobody.
forwarded_allow_ips = ""

# The store is steered by signals alone.
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
    """The parent process is about to start its workers, which share with it all that is loaded."""
    end_with_starter()
    # What is loaded stays: looking for garbage in it would make a fetch wait for a tenth of a second now and then, and
    # give each worker a copy of its own of the pages that it lies on.
    gc.collect()
    gc.freeze()
