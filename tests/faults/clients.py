"""Runners that ask again as the real clients do, and systems that change policies; both by plain HTTP."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass

from tests.operations.production import HOST

TRIES, PAUSE_SECONDS, TIMEOUT_SECONDS = 3, 1.0, 3.0


@dataclass
class Answer:
    """The last answer to a call: status 0 where none came; `seconds` is how long that last try took."""

    status: int
    body: bytes
    seconds: float
    began: float
    tries: int
    remembered: bool = False

    def json(self):
        return json.loads(self.body)


def call(port, method, path, headers, body=None, *, timeout=TIMEOUT_SECONDS):
    """One try, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    began = time.monotonic()
    try:
        connection.request(method, path, body, {"Host": HOST, "Connection": "close", **headers})
        response = connection.getresponse()
        content = response.read()
        remembered = response.getheader("Policy-Store-Answer") == "remembered"
        return Answer(response.status, content, time.monotonic() - began, began, 1, remembered)
    except (OSError, http.client.HTTPException):
        return Answer(0, b"", time.monotonic() - began, began, 1)
    finally:
        connection.close()


def fetch(port, key, repository, number):
    """A job's fetch, with the retries of the action: three tries, a second apart, three seconds each."""
    path = f"/v1/github/octo-org/{repository}/actions/policies/workflow-policy?workflow=ci.yml&run_id={number}"
    path += f"&correlationId={repository}-{number}"
    for attempt in range(1, TRIES + 1):
        answer = call(port, "GET", path, {"Authorization": f"vm-api-key {key}"})
        answer.tries = attempt
        if answer.status in (200, 404):
            return answer
        time.sleep(PAUSE_SECONDS)
    return answer


class Manager:
    """A system with a management key."""

    def __init__(self, port, key):
        self.port, self.key = port, key

    def ask(self, method, path, body=None, timeout=30):
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body)
        address = f"/v1/github/octo-org/actions/policies/{path}"
        return call(self.port, method, address, headers, sent, timeout=timeout)

    def save(self, name, endpoints, egress_policy="block"):
        body = {"owner": "octo-org", "policyName": name, "allowed_endpoints": endpoints, "egress_policy": egress_policy}
        return self.ask("POST", name, body)

    def attach(self, name, *repositories, replace=True):
        repos = [{"name": repository, "apply_to_repo": True} for repository in repositories]
        org = {"name": "octo-org", "apply_to_org": False, "repos": repos}
        return self.ask("POST", f"{name}/attach", {"org": org, "clusters": [], "replace": replace})


def together(count, work):
    """Run `work(number)` in so many threads; returns their results, or raises the first error."""
    results, errors = {}, []

    def run(number):
        try:
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(count)]
