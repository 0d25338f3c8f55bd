"""Runs the store's processes side by side, and stops all of them together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from types import FrameType

from django.core.management.base import CommandError

POLL_SECONDS = 0.2
STOP_SECONDS = 20
STARTED_BY = "POLICYSTORE_STARTED_BY"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Processes = Mapping[str, "subprocess.Popen[bytes]"]


class StopRequest:
    """Remembers how often this process was asked to stop, by Ctrl-C, by SIGTERM or by a terminal that closed."""

    def __init__(self) -> None:
        self.times = 0

    def listen(self) -> None:
        """Only count from now on: an exception raised in the middle of starting a process would leave it behind."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._count)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.times += 1


def run_together(
    commands: Mapping[str, Sequence[str]],
    *,
    environment: Mapping[str, str],
    request: StopRequest,
    is_up: Callable[[], bool],
    on_ready: Callable[[], None],
) -> str | None:
    """Run named commands until one ends or this process is asked to stop; then stop all of them.

    `is_up` is called several times a second until it returns True; then `on_ready` is called once. Returns None after a
    request to stop, else a sentence about the process that ended unexpectedly.
    """
    running: dict[str, subprocess.Popen[bytes]] = {}
    variables = {**environment, STARTED_BY: str(os.getpid())}
    try:
        for name, command in commands.items():
            # A session of its own, so that Ctrl-C in the terminal reaches the children only through this process.
            running[name] = subprocess.Popen(command, env=variables, start_new_session=True)  # noqa: S603
        ended = _wait(running, lambda: request.times > 0 or is_up())
        if ended is None and not request.times:
            on_ready()
            ended = _wait(running, lambda: request.times > 0)
        return ended
    finally:
        _stop_all(running.values(), request)


def end_with_starter() -> None:
    """End this process when the one that started it is gone without stopping it, as after `kill -9`.

    Does nothing for a process that `run_together` did not start.
    """
    starter = os.environ.get(STARTED_BY, "")
    # A starter that ended before this line is no longer the parent.
    if starter.isdecimal() and (os.getppid() == int(starter) or not _exists(int(starter))):
        threading.Thread(target=_watch, args=(int(starter),), name="starter-watch", daemon=True).start()


def _watch(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _wait(running: Processes, is_over: Callable[[], bool]) -> str | None:
    while not is_over():
        for name, process in running.items():
            code = process.poll()
            if code is not None:
                return f"The {name} process ended unexpectedly ({_how(code)}); the others were stopped too."
        time.sleep(POLL_SECONDS)
    return None


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _stop_all(processes: Collection[subprocess.Popen[bytes]], request: StopRequest) -> None:
    """Ask all to stop and wait; kill what is left when the time is up or a person asks again."""
    asked = request.times
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline or request.times > max(asked, 1):
            break
        time.sleep(POLL_SECONDS)
    for process in processes:
        # The whole session, for a process that has children itself; usually none is left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check_port_is_free(host: str, port: int, *, option: str) -> None:
    """Raise CommandError, which names the option for the port, if nothing can listen at this host and port."""
    if not 0 < port < 65536:
        raise CommandError(f"“{port}” is not a valid port. Choose one from 1 to 65535, for example {option} 8001.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do; without it, the connections of an earlier process would make its port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, TypeError, UnicodeError) as error:
            raise CommandError(
                f"Cannot listen on {host}:{port} ({error}). Choose another port with {option}."
            ) from error
