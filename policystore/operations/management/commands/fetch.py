"""The fetch process: Granian with the small WSGI application of `policystore.config.fetch_wsgi`."""

from __future__ import annotations

import gc
import socket
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from granian import wsgi
from granian.constants import HTTPModes, Interfaces, RuntimeModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server import mp

from policystore.config import env
from policystore.operations.processes import check_port_is_free, end_with_starter
from policystore.runners.fetch import app, connection_pool, handler, recorder, request_body
from policystore.web import metrics, request_log

APPLICATION = "policystore.config.fetch_wsgi"
# As many of Granian's threads work at a time as a process has connections to the database: twenty that compete for
# Python's lock answer a quarter fewer fetches, with twice the p99. The others are for requests with slow bodies.
WORKING_THREADS = connection_pool.CONNECTIONS
GRANIAN_THREADS = WORKING_THREADS + app.DATABASE_SLOTS + request_body.SLOTS
# Requests without a body that may wait for the database.
OTHER_THREADS = app.DATABASE_SLOTS + 2
# Fetches that wait for a connection.
WAITING_THREADS = 16
# A connection costs a few kilobytes and no thread, so that thousands of idle ones are no reason to accept none.
MOST_CONNECTIONS = 10_000
BACKLOG = 1024
# A client that sends its headers more slowly is cut off, as is a kept connection that is idle for as long.
HEADER_MILLISECONDS = 10_000
MOST_HEADER_BYTES = 32 * 1024
STOP_SECONDS = 10
# A fetch waits this long for the thread that records fetches to hand over, instead of 5 ms.
SWITCH_SECONDS = 0.0005


class Server(mp.MPServer):
    """Granian with a listening socket for each worker that outlives the worker.

    The kernel spreads connections over the sockets, so kept ones are spread, too; with one socket for all workers, one
    of them may accept all. Granian's own sockets close with their worker, and the kernel resets what waits there. Here
    the next worker accepts it.
    """

    def _init_shared_socket(self) -> None:
        family = socket.AF_INET6 if ":" in self.bind_addr else socket.AF_INET
        address = self.bind_addr, self.bind_port
        self._listeners = [
            socket.create_server(address, family=family, backlog=self.backlog, reuse_port=True)
            for _ in range(self.workers)
        ]
        for listener in self._listeners:
            listener.setblocking(False)
        self._sso = None

    def _drop_shared_socket(self) -> None:
        # Otherwise the kernel would accept connections until this process ends, which nobody answers.
        for listener in self._listeners:
            listener.close()

    def _spawn_worker(self, idx: int, *arguments: Any, **options: Any) -> Any:
        self._shd: Any = SocketHolder(self._listeners[idx].fileno(), False, self.backlog)  # type: ignore[call-arg]
        return super()._spawn_worker(idx, *arguments, **options)

    def _respawn_workers(self, workers: Any, *arguments: Any, **options: Any) -> None:
        # Granian would take the death of a worker that it is about to replace for a crash loop, and exit.
        for index in workers:
            self.wrks[index].interrupt_by_parent = True
        super()._respawn_workers(workers, *arguments, **options)


class Threads:
    """Calls a WSGI application for Granian so that few threads work at a time, and none of these waits for a client.

    Granian has many threads, since a request keeps its thread until its body is read. All but WORKING_THREADS are held
    back here. When a working thread takes a request that may have a body, another works in its place. Other requests
    that may wait are answered by threads of this class; Granian takes a response from any thread.
    """

    def __init__(self, call: Callable[[Any, dict[str, Any]], int]) -> None:
        self._call = call
        self._may_work = threading.Semaphore(WORKING_THREADS)
        self._this = threading.local()
        self._waiting = ThreadPoolExecutor(WAITING_THREADS, "fetch-waiting")
        self._others = ThreadPoolExecutor(OTHER_THREADS, "runner-routes")

    def __call__(self, protocol: Any, environ: dict[str, Any]) -> None:
        """Send the response, or let another thread send it. Returns when this thread may take the next request."""
        works = getattr(self._this, "works", False) or self._may_work.acquire(blocking=False)
        if environ["REQUEST_METHOD"] == "POST":
            self._this.works = False
            if works:
                self._may_work.release()
            self._call(protocol, environ)
            return
        self._this.works = works
        if works and _is_fetch(environ) and not handler.database.would_wait:
            self._call(protocol, environ)
            return
        self._hand_over(protocol, environ)
        if not works:
            self._this.works = self._may_work.acquire()

    def _hand_over(self, protocol: Any, environ: dict[str, Any]) -> None:
        threads = self._waiting if _is_fetch(environ) else self._others
        try:
            threads.submit(self._call, protocol, environ)
        except RuntimeError:
            # No thread can be started, or the process is about to end.
            self._call(protocol, environ)


def _is_fetch(environ: dict[str, Any]) -> bool:
    path: str = environ["PATH_INFO"]
    return path.endswith(app.FETCH_SUFFIX)


def _wrap_application(*arguments: Any) -> Threads:
    return Threads(wsgi._callback_wrapper(*arguments))


class Command(BaseCommand):
    """Runs until stopped; HUP replaces its worker processes one by one."""

    help = "Serve policy fetches and the other routes for runners."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", type=_address, help="the address (default: 127.0.0.1)")
        parser.add_argument("--port", default=8001, type=int, help="the port (default: 8001)")
        parser.add_argument("--certificate", type=Path, help="a PEM file, to serve https")
        parser.add_argument("--key", type=Path, help="the certificate's private key, in PKCS #8")

    def handle(self, *args: Any, **options: Any) -> None:
        if bool(options["certificate"]) != bool(options["key"]):
            raise CommandError("Give both --certificate and --key, or none of them.")
        # Granian itself would report it as a backtrace of its own.
        check_port_is_free(options["host"], options["port"], option="--port")
        workers = env.integer("WEB_CONCURRENCY", default=2, least=1)
        server = Server(
            APPLICATION,
            address=options["host"],
            port=options["port"],
            interface=Interfaces.WSGI,
            # The only one that limits how long a client may take for its first bytes.
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_MILLISECONDS, max_buffer_size=MOST_HEADER_BYTES),
            workers=workers,
            runtime_mode=RuntimeModes.st,
            blocking_threads=GRANIAN_THREADS,
            blocking_threads_idle_timeout=600,
            backlog=BACKLOG,
            backpressure=MOST_CONNECTIONS,
            respawn_failed_workers=True,
            workers_kill_timeout=STOP_SECONDS,
            ssl_cert=options["certificate"],
            ssl_key=options["key"],
            ssl_protocol_min=SSLProtocols.tls12,
            log_level=LogLevels.error,
            log_dictconfig=request_log.configuration(),
        )
        # Loaded once, before the workers are forked, which then share its memory.
        import_module(APPLICATION)
        # Granian has no setting for it.
        mp._wsgi_call_wrap = _wrap_application  # type: ignore[assignment,attr-defined]
        metrics.share_between_workers()
        # Before there are threads, which do not survive a fork.
        writer = recorder.WriterProcess()
        end_with_starter()
        try:
            server.serve(target_loader=_application, wrap_loader=False)
        finally:
            writer.stop()


def _application() -> Callable[..., Any]:
    """Prepare a worker process, and return what it serves."""
    sys.setswitchinterval(SWITCH_SECONDS)
    # A collection that goes through everything loaded takes a tenth of a second, and copies the pages that it is on.
    gc.collect()
    gc.freeze()
    application: Callable[..., Any] = import_module(APPLICATION).application
    return application


def _address(host: str) -> str:
    """The IP address of a host name; Granian takes no names."""
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError as error:
        raise ArgumentTypeError(f"“{host}” is not an address of this machine, for example 127.0.0.1.") from error
