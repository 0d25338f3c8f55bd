"""GitHub's OIDC tokens, and an issuer that publishes their keys: a loopback server."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer:
    """Publishes keys as GitHub does; `published` maps key ids to private keys."""

    def __init__(self):
        self.published = {"one": KEY}
        self.asked = 0
        self.away = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked += 1
                self.send_response(503 if issuer.away else 200)
                self.end_headers()
                if not issuer.away:
                    self.wfile.write(json.dumps(issuer.document(self.path)).encode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def document(self, path):
        if path.endswith("openid-configuration"):
            return {"issuer": self.address, "jwks_uri": f"{self.address}/keys"}
        keys = [
            {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": name, "alg": "RS256", "use": "sig"}
            for name, key in self.published.items()
        ]
        return {"keys": keys}

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def token(issuer, *, key=KEY, kid="one", algorithm="RS256", **claims):
    now = int(time.time())
    said = {
        "iss": issuer.address,
        "aud": "https://github.com/octo-org",
        "repository_owner": "octo-org",
        "repository": "octo-org/hello-world",
        "iat": now,
        "exp": now + 300,
        **claims,
    }
    return jwt.encode(said, key, algorithm=algorithm, headers={"kid": kid})
