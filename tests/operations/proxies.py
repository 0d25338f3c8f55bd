"""The nginx and Caddy configurations of OPERATIONS.md, run by the real programs on ports of a test's own."""

import http.client
import os
import re
import socket
import ssl
from contextlib import suppress

import pytest

from policystore.operations import certificates
from tests.operations.production import HOST
from tests.operations.running import ROOT, free_port, wait_until


def manual_block(language):
    """The fenced block of this language in the operator's manual."""
    manual = (ROOT / ".github" / "OPERATIONS.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", manual, re.MULTILINE | re.DOTALL)
    return block


def changed(text, changes):
    for before, after in changes.items():
        assert text.count(before) == 1, f"the manual's configuration has no single {before!r}"
        text = text.replace(before, after)
    return text


def nginx(folder, made, upstream, fetch, http, https):
    site = changed(
        manual_block("nginx"),
        {
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};",
            "server 127.0.0.1:8001;": f"server 127.0.0.1:{fetch};",
            "server 127.0.0.1:8000 backup;": f"server 127.0.0.1:{upstream} backup;",
            "listen 80;": f"listen 127.0.0.1:{http};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{https} ssl http2;",
            "/etc/ssl/policystore.pem": str(made.certificate),
            "/etc/ssl/policystore.key": str(made.key),
        },
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    whole = f"{user}daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n"
    (folder / "nginx.conf").write_text(f"{whole}{temporary}{site}}}\n")
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(folder, made, upstream, fetch, http, https):
    site = changed(
        manual_block("caddyfile"),
        {
            "reverse_proxy 127.0.0.1:8000": f"reverse_proxy 127.0.0.1:{upstream}",
            "reverse_proxy 127.0.0.1:8001 127.0.0.1:8000": f"reverse_proxy 127.0.0.1:{fetch} 127.0.0.1:{upstream}",
            f"{HOST} {{\n": f"{HOST} {{\n\ttls {made.certificate} {made.key}\n",
        },
    )
    whole = f"{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\thttp_port {http}\n\thttps_port {https}\n}}\n"
    (folder / "Caddyfile").write_text(whole + site)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


class Proxy:
    """One of the proxies, in front of some port of this machine; where `fetch` is none, no fetch process runs."""

    def __init__(self, make, run, folder, upstream, fetch=None):
        folder.mkdir()
        made = certificates.prepare(folder / "tls", [HOST])
        self.trusted = ssl.create_default_context(cafile=made.authority)
        self.http, self.https = free_port(), free_port()
        command = make(folder, made, upstream, fetch or free_port(), self.http, self.https)
        environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        self.running = run(command, environment=environment)
        wait_until(self._listens, f"{command[0]} listening")

    def _listens(self):
        assert self.running.process.poll() is None, self.running.said
        try:
            socket.create_connection(("127.0.0.1", self.https), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    def connect(self, *, receive_buffer=None):
        """A TLS connection to it, that takes in no more than so many bytes at once."""
        plain = socket.socket()
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(30)
        plain.connect(("127.0.0.1", self.https))
        return self.trusted.wrap_socket(plain, server_hostname=HOST)

    def ask(self, target, *, method="GET", body=b"", **headers):
        """Status, headers and body that it answers; the target is sent as it stands here."""
        connection = http.client.HTTPConnection(HOST)
        connection.sock = self.connect()
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            chunked = headers.get("Transfer_Encoding") == "chunked"
            if body and not chunked:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            # An early refusal may close the way in; the answer is there all the same.
            with suppress(OSError):
                connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


# Each of the two, where its program is there.
BOTH = [pytest.param(nginx, marks=pytest.mark.needs_nginx), pytest.param(caddy, marks=pytest.mark.needs_caddy)]
