"""A store over https as runners meet it, and the part of GitHub that its `policy:` input needs."""

import json
import re
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.end_to_end.running import Store
from tests.operations.running import wait_until

HERE = Path(__file__).parent
VENDOR = "agent.api.stepsecurity.io"
PAGES = "/organizations/octo-org"
BLOCK = """\
egress-policy: block
disable-sudo: true
allowed-endpoints: >
  # clone
  github.com:443
  GHCR.io
"""
AUDIT = "egress-policy: audit\nallowed-endpoints: github.com:443\n"
SIGNING_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class GitHub:
    """Plays GitHub's part for the `policy:` input: gives the job its token, and publishes the key that signed it."""

    def __init__(self):
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(github.answer(self.path)).encode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def answer(self, path):
        if "openid-configuration" in path:
            return {"jwks_uri": f"{self.address}/keys"}
        if "/keys" in path:
            key = json.loads(RSAAlgorithm.to_jwk(SIGNING_KEY.public_key()))
            return {"keys": [{**key, "kid": "one", "alg": "RS256", "use": "sig"}]}
        return {"value": self.token()}

    def token(self, *, owner="octo-org", lifetime=300):
        """What a job of this owner proves itself with."""
        now = int(time.time())
        claims = {"iss": self.address, "aud": f"https://github.com/{owner}", "repository_owner": owner}
        claims |= {"iat": now, "exp": now + lifetime}
        return jwt.encode(claims, SIGNING_KEY, algorithm="RS256", headers={"kid": "one"})

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class StoreForClients(Store):
    """A store over https that knows the vendor's name, with a runner key and policies by the pages."""

    def __init__(self, folder, github):
        arguments = ("--tls", "--no-demo", "--organization", "octo-org", "--name", VENDOR)
        super().__init__(folder, *arguments, OIDC_ISSUERS=github.address)
        self.sign_in()
        self.key = self.regenerate("primary")

    def regenerate(self, slot, kind="vm"):
        """A new key by the page of keys."""
        form = {"kind": kind, "slot": slot, "confirmed": "on"}
        page = self.post(f"{PAGES}/settings/harden-runner-installation/regenerate/", form)
        return re.search(rf"ps_{kind}_\w{{30,}}", page.text).group()

    def create(self, name, text):
        """A policy by the pages; its id."""
        page = self.post(f"{PAGES}/policy-store/new/", {"name": name, "description": "", "text": text})
        return re.search(r"/policy-store/(\d+)/", str(page.url)).group(1)

    def attach(self, name, text, scope_key):
        """A new policy on a scope; its id."""
        policy_id = self.create(name, text)
        self.post(f"{PAGES}/policy-store/{policy_id}/attach/", {"add": scope_key, "action": "save"})
        return policy_id

    def edit(self, policy_id, name, text):
        """Update a policy by its page."""
        address = f"{PAGES}/policy-store/{policy_id}/edit/"
        version = re.search(r'name="version" value="(\d+)"', self.browser.get(address).text).group(1)
        self.post(address, {"name": name, "description": "", "text": text, "version": version})

    def wait_until_recorded(self, correlation_id):
        """A job's own steps, which last longer than the store takes to record what the job fetched at its start."""
        statement = "SELECT 1 FROM runners_jobrun WHERE correlation_id = ? AND fetched_at IS NOT NULL"

        def recorded():
            with closing(sqlite3.connect(self.data / "policystore.sqlite3")) as database:
                return database.execute(statement, [correlation_id]).fetchone()

        wait_until(recorded, f"a record of {correlation_id}")

    def ask(self, client, repository="blocked", workflow="build.yml", **job):
        """What a job of that repository ends in by the client of this project's own (`runner_client.cjs`)."""
        said = {
            "client": client,
            # The hooks are given STEP_API; the action has one address for everything.
            "api": f"{self.address if client == 'action' else self.fetch_address}/v1",
            "owner": "octo-org",
            "repository": repository,
            "workflow_ref": f"octo-org/{repository}/.github/workflows/{workflow}@refs/heads/main",
            "run_id": "9876543210",
            "job": "build",
            "key": self.key,
            **job,
        }
        done = subprocess.run(
            ["node", str(HERE / "runner_client.cjs")],
            input=json.dumps(said),
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "NODE_EXTRA_CA_CERTS": str(self.authority)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
