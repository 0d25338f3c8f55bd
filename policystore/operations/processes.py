"""Runs the store's processes side by side, and stops all of them together."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from types import FrameType

POLL_SECONDS = 0.2
STOP_SECONDS = 15


class Stopped(Exception):
    """Somebody asked the processes to stop."""


def run_together(commands: Mapping[str, Sequence[str]], *, environment: Mapping[str, str]) -> str | None:
    """Run named commands until one ends or this process is told to stop; then stop all.

    Returns None after Ctrl-C or SIGTERM, else a sentence about the process that ended by itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            # A session of its own, so that Ctrl-C in the terminal reaches the children only through this process.
            running[name] = subprocess.Popen(command, env=dict(environment), start_new_session=True)  # noqa: S603
        return _wait(running)
    except Stopped:
        return None
    finally:
        _stop_all(running.values())


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _wait(running: Mapping[str, subprocess.Popen[bytes]]) -> str:
    while True:
        for name, process in running.items():
            code = process.poll()
            if code is not None:
                return f"The {name} process ended with code {code}; the others are stopped too."
        time.sleep(POLL_SECONDS)


def _stop_all(processes: Collection[subprocess.Popen[bytes]]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(timeout=max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
