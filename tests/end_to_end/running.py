"""Starts a whole store as the README says, in processes of its own, and signs a person in to it."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder: Path, *arguments: str, port: int | None = None, **environment: str) -> tuple[subprocess.Popen, str]:
    """`quickstart` with these arguments, once it serves or ends; and what it has printed so far."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("POLICYSTORE_", "DJANGO_"))}
    said = {**inherited, "POLICYSTORE_DATA_DIR": str(folder), "DATABASE_URL": "", **environment}
    command = [sys.executable, "manage.py", "quickstart", "--port", str(port or free_port()), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=said, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "serves on" in line:
            break
    return process, "".join(lines)


def stop(process: subprocess.Popen, number: int = signal.SIGINT) -> int:
    """Ctrl-C, and the exit code."""
    process.send_signal(number)
    code = process.wait(timeout=40)
    process.stdout.close()
    return code


class Store:
    """A running store, and a browser without a screen (httpx) that is signed in as its first administrator."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.port = free_port()
        self.process, self.said = start(folder, *arguments, port=self.port, **environment)
        secure = "--tls" in arguments
        self.authority = folder / "tls" / "authority.pem"
        self.address = f"{'https' if secure else 'http'}://127.0.0.1:{self.port}"
        self.link = re.search(r"https?://\S+/sign-in/link/\S+", self.said).group()
        context = ssl.create_default_context(cafile=self.authority) if secure else True
        self.browser = httpx.Client(base_url=self.address, verify=context, follow_redirects=True)
        self._wait()

    def _wait(self) -> None:
        for _ in range(150):
            try:
                self.browser.get("/v1")
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"the store does not answer: {self.said}")

    def sign_in(self) -> None:
        self.post(self.link.removeprefix(self.address), {}, come_from=self.link.removeprefix(self.address))

    def post(self, path: str, form: dict[str, str], *, come_from: str = "/", status: int = 200) -> httpx.Response:
        page = self.browser.get(come_from).text
        headers = {"referer": f"{self.address}/"}
        token = re.search(r"""(?:csrfmiddlewaretoken" value="|x-csrftoken": ")(\w+)""", page)
        said = {**form, "csrfmiddlewaretoken": token.group(1) if token else ""}
        answer = self.browser.post(path, data=said, headers=headers)
        assert answer.status_code == status, (path, answer.status_code, answer.text[-2000:])
        return answer

    def close(self) -> None:
        self.browser.close()
        assert stop(self.process) == 0
