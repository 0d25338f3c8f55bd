"""Runs the store's own commands as processes, as a person or a platform does."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx

from tests.both_databases import clean_environment

ROOT = Path(__file__).resolve().parent.parent.parent
# Generous, since a machine that runs tests is busy.
WAIT_SECONDS = 180


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(happened, what, seconds=WAIT_SECONDS, pause=0.05):
    """What `happened` returns as soon as that is true; it is called again after `pause` seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := happened():
            return result
        time.sleep(pause)
    raise AssertionError(f"{what} did not happen within {seconds} seconds")


def alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process_id}/status").read_text()
    return "State:\tZ" not in status


def age(process_id):
    """How many seconds ago the process was started."""
    started = int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def children(process_id):
    """The ids of the processes that this one has started and that are still there."""
    listed = Path(f"/proc/{process_id}/task").glob("*/children")
    return [int(child) for tasks in listed for child in tasks.read_text().split()]


def descendants(process_id):
    """The ids of a process' children, their children and so on."""
    below = children(process_id)
    return below + [grandchild for child in below for grandchild in descendants(child)]


class Running:
    """A command of the store that goes on running; `said` is what it has written so far."""

    def __init__(self, command, *, environment=None, folder=ROOT):
        # A file, which nobody has to read while the store answers: whoever measures it would measure the reading too.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 closed by `end`
        self._said = None
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**clean_environment(), **(environment or {})},
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def said(self):
        if self._said is not None:
            return self._said
        file = self._output.fileno()
        # Not by seeking, since the process writes where the file stands.
        return os.pread(file, os.fstat(file).st_size, 0).decode("utf-8", "replace")

    def wait_for(self, text):
        """Wait until it has said this; fails when it ends before."""

        def said():
            if text not in self.said and self.process.poll() is not None:
                assert text in self.said, f"it ended with {self.process.returncode}:\n{self.said}"
            return text in self.said

        wait_until(said, f"saying {text!r}")
        return self

    def family(self):
        """The process ids of everything that it has started."""
        return descendants(self.process.pid)

    def wait(self):
        """Its exit code, once it has ended by itself."""
        return self.process.wait(timeout=WAIT_SECONDS)

    def stop(self, number=signal.SIGTERM):
        """Ask it to stop, by a signal to it alone, and return its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def end(self):
        """Whatever it does, it and all that it started are gone afterwards."""
        if self.process.poll() is None:
            left = [self.process.pid, *self.family()]
            self.process.terminate()
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                for process_id in filter(alive, left):
                    os.kill(process_id, signal.SIGKILL)
        self.process.wait()
        self._said = self.said
        self._output.close()


class Quickstart(Running):
    """`manage.py quickstart` with its store in `folder`."""

    def __init__(self, folder, *options, port=None, environment=None):
        self.port = port or free_port()
        self.fetch_port = free_port()
        self.data = folder
        ports = ["--port", str(self.port), "--fetch-port", str(self.fetch_port)]
        command = [sys.executable, "manage.py", "quickstart", *ports, *options]
        super().__init__(command, environment={"POLICYSTORE_DATA_DIR": str(folder), **(environment or {})})

    @property
    def address(self):
        return re.search(r"management API on (\S+)", self.said).group(1)

    @property
    def fetch_address(self):
        return re.search(r"policy fetches on (\S+)", self.said).group(1)

    @property
    def link(self):
        """The one-time sign-in link, or None where none was printed."""
        found = re.search(r"https?://\S+/sign-in/link/\S+", self.said)
        return found and found.group()

    def serving(self, **client):
        """Wait until both its web and its fetch process answer requests."""
        self.wait_for("Press Ctrl-C")

        def answers(address):
            assert self.process.poll() is None, self.said
            try:
                return httpx.get(f"{address}/v1", **client).status_code == 200
            except httpx.TransportError:
                return False

        # A fetch process that is asked to stop before its workers serve waits ten seconds for them.
        for address in (self.address, self.fetch_address):
            wait_until(partial(answers, address), f"an answer of {address}")
        return self


def sign_in(client, link):
    """Open a one-time link in a browser and press its button; returns the answer."""
    page = client.get(link)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text).group(1)
    return client.post(link, data={"csrfmiddlewaretoken": token}, headers={"referer": link})
