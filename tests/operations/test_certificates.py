"""The local certificate authority, and `quickstart --tls`, as clients meet them."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from datetime import datetime, timedelta
from ipaddress import ip_address

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from policystore.operations import certificates
from tests.operations.production import migrated
from tests.operations.running import Quickstart, sign_in

# Nothing here depends on the database: once is enough.
pytestmark = pytest.mark.browser

HOSTS = ["localhost", "127.0.0.1", "::1"]


def loaded(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def names_of(certificate):
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def later(monkeypatch, **difference):
    """From now on the module thinks that so much time has passed."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(**difference)

    monkeypatch.setattr(certificates, "datetime", Clock)


def handshake(made, name, *, trusting=None):
    """The server's certificate, as a client sees it that trusts this authority alone and asks for this name."""
    trusted = ssl.create_default_context(cafile=trusting or made.authority)
    trusted.verify_flags |= ssl.VERIFY_X509_STRICT
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(made.certificate, made.key)
    near, far = socket.socketpair()
    failures = []

    def answer():
        try:
            serving.wrap_socket(far, server_side=True).close()
        except OSError as error:
            failures.append(error)
            far.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with trusted.wrap_socket(near, server_hostname=name) as client:
            return client.getpeercert()
    finally:
        near.close()
        thread.join()


@pytest.mark.parametrize("name", [*HOSTS, "store.example"])
def test_a_client_that_trusts_the_authority_alone_is_content(tmp_path, name):
    made = certificates.prepare(tmp_path / "tls", [*HOSTS, "store.example"])
    assert handshake(made, name)["issuer"] == ((("commonName", "Policy Store local authority"),),)


def test_a_client_refuses_another_name_and_another_authority(tmp_path):
    made = certificates.prepare(tmp_path / "one", HOSTS)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, "elsewhere.example")
    stranger = certificates.prepare(tmp_path / "other", HOSTS)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, "localhost", trusting=stranger.authority)


def test_keys_are_readable_by_their_owner_alone(tmp_path):
    made = certificates.prepare(tmp_path / "tls", HOSTS)
    for key in (made.key, tmp_path / "tls" / "authority.key"):
        assert key.stat().st_mode & 0o777 == 0o600, key
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert b"PRIVATE" not in made.authority.read_bytes() + made.certificate.read_bytes()


def test_the_certificate_says_what_it_is_for(tmp_path):
    made = certificates.prepare(tmp_path, HOSTS)
    server, authority = loaded(made.certificate), loaded(made.authority)
    assert names_of(server) == set(HOSTS)
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    # Apple's clients refuse what is good for longer than 398 days.
    assert server.not_valid_after_utc - server.not_valid_before_utc < timedelta(days=398)


def test_what_is_good_is_kept(tmp_path):
    made = certificates.prepare(tmp_path, HOSTS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert certificates.prepare(tmp_path, [*reversed(HOSTS), "LOCALHOST", "0:0::1"]) == made
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_name_needs_another_certificate_but_no_other_authority(tmp_path):
    made = certificates.prepare(tmp_path, HOSTS)
    authority, first = made.authority.read_bytes(), loaded(made.certificate)
    certificates.prepare(tmp_path, [*HOSTS, "192.0.2.7"])
    assert made.authority.read_bytes() == authority
    assert names_of(loaded(made.certificate)) - names_of(first) == {"192.0.2.7"}
    assert handshake(made, str(ip_address("192.0.2.7")))


def test_a_certificate_near_its_end_is_renewed_under_the_same_authority(tmp_path, monkeypatch):
    made = certificates.prepare(tmp_path, HOSTS)
    authority, first = made.authority.read_bytes(), loaded(made.certificate)
    later(monkeypatch, days=certificates.SERVER_DAYS - 29)
    certificates.prepare(tmp_path, HOSTS)
    assert made.authority.read_bytes() == authority
    assert loaded(made.certificate).not_valid_after_utc > first.not_valid_after_utc


def test_an_authority_near_its_end_is_replaced_with_everything_below_it(tmp_path, monkeypatch):
    made = certificates.prepare(tmp_path, HOSTS)
    first = made.authority.read_bytes()
    later(monkeypatch, days=certificates.AUTHORITY_DAYS - 29)
    certificates.prepare(tmp_path, HOSTS)
    assert made.authority.read_bytes() != first
    loaded(made.certificate).verify_directly_issued_by(loaded(made.authority))


@pytest.mark.parametrize("broken", ["authority.pem", "authority.key", "server.pem", "server.key"])
@pytest.mark.parametrize("content", [b"", b"not a certificate", None], ids=["empty", "nonsense", "another"])
def test_a_broken_file_is_made_anew(tmp_path, broken, content):
    made = certificates.prepare(tmp_path / "tls", HOSTS)
    if content is None:
        certificates.prepare(tmp_path / "other", HOSTS)
        content = (tmp_path / "other" / broken).read_bytes()
    (tmp_path / "tls" / broken).write_bytes(content)
    certificates.prepare(tmp_path / "tls", HOSTS)
    assert handshake(made, "localhost")


@pytest.mark.parametrize("host", ["", "bücher.example", "a b", "x" * 300, "*"])
def test_a_name_that_no_certificate_holds_is_refused(tmp_path, host):
    with pytest.raises(ValueError, match="is neither an address nor a host name"):
        certificates.prepare(tmp_path / "tls", [*HOSTS, host])
    assert not (tmp_path / "tls").exists()


NODE = """
const request = require("https").get(process.argv[1], (answer) => {
  answer.resume();
  answer.on("end", () => console.log(JSON.stringify({ status: answer.statusCode })));
});
request.on("error", (error) => console.log(JSON.stringify({ error: error.code })));
"""


def node(address, **environment):
    done = subprocess.run(
        ["node", "-e", NODE, address],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A running store on https; `trusted` is what its clients verify it by."""
    folder = tmp_path_factory.mktemp("stores") / "store"
    migrated(folder)
    store = Quickstart(folder, "--tls", "--no-demo", "--name", "store.example")
    try:
        store.wait_for("Press Ctrl-C")
        store.authority = folder / "tls" / "authority.pem"
        store.trusted = ssl.create_default_context(cafile=store.authority)
        # Its link works as soon as it is printed.
        assert httpx.get(store.link, verify=store.trusted, timeout=60).status_code == 200
        yield store.serving(verify=store.trusted)
    finally:
        store.end()


def test_quickstart_serves_https_that_browsers_and_tools_trust_by_its_authority(secure):
    assert secure.address == f"https://127.0.0.1:{secure.port}"
    assert f"NODE_EXTRA_CA_CERTS={secure.authority}" in secure.said
    assert f"curl --cacert {secure.authority} {secure.address}/v1" in secure.said
    assert not [line for line in secure.said.splitlines() if " WARNING " in line or " ERROR " in line]
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{secure.address}/v1")

    with httpx.Client(follow_redirects=True, verify=secure.trusted) as browser:
        signed_in = sign_in(browser, secure.link)
        assert signed_in.status_code == 200
        cookies = list(browser.cookies.jar)
        assert {cookie.name for cookie in cookies} == {"__Host-session", "__Host-csrf"}
        assert all(cookie.secure for cookie in cookies)


@pytest.mark.needs_curl
def test_curl_trusts_the_store_by_its_authority(secure):
    for host in ("localhost", "127.0.0.1"):
        command = ["curl", "-sS", "--noproxy", "*", "--cacert", secure.authority, f"https://{host}:{secure.port}/v1"]
        assert isinstance(json.loads(subprocess.run(command, check=True, capture_output=True).stdout), dict)


@pytest.mark.needs_node
def test_node_trusts_the_store_by_its_authority(secure):
    address = f"https://localhost:{secure.port}/v1"
    assert node(address, NODE_EXTRA_CA_CERTS=str(secure.authority)) == {"status": 200}
    assert "error" in node(address)


def test_a_start_without_tls_keeps_the_certificates_and_people_able_to_sign_in(secure, quickstart, tmp_path):
    migrated(tmp_path / "store")
    shutil.copy(secure.data / "secret-key", tmp_path / "store")
    shutil.copytree(secure.data / "tls", tmp_path / "store" / "tls")
    plain = quickstart("--no-demo").serving()
    for path in (secure.data / "tls").iterdir():
        assert (plain.data / "tls" / path.name).read_bytes() == path.read_bytes()
    with httpx.Client(follow_redirects=True) as browser:
        assert sign_in(browser, plain.link).status_code == 200
        assert {cookie.name for cookie in browser.cookies.jar} == {"sessionid", "csrftoken"}
