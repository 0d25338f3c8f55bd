"""What the store sends to, and what it never does."""

import socket
from ipaddress import ip_network

import pytest

from policystore.integrations import http_client
from policystore.integrations.http_client import AddressRefused

CLOSED = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "no address",
]
OPEN = ["1.1.1.1", "8.8.8.8", "140.82.112.3", "2606:4700:4700::1111", "2a00:1450:4001::200e", "::ffff:8.8.8.8"]


def leads_to(monkeypatch, *ips):
    """Make every name lead to these; returns the names that were asked for."""
    asked = []

    def answer(host, port, *_, **__):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


@pytest.mark.parametrize("ip", CLOSED)
def test_what_is_not_public_is_not_sent_to(monkeypatch, ip):
    assert not http_client.is_public(ip)
    leads_to(monkeypatch, ip)
    with pytest.raises(AddressRefused, match="not public"):
        http_client.look_up("https://hooks.example.com/", seconds=1)


@pytest.mark.parametrize("ip", OPEN)
def test_what_is_public_is_sent_to_by_https_alone(monkeypatch, ip):
    leads_to(monkeypatch, ip)
    assert http_client.look_up("https://hooks.example.com/", seconds=1).ips == (ip,)
    with pytest.raises(AddressRefused, match="only https"):
        http_client.look_up("http://hooks.example.com/", seconds=1)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "localhost",
        "LOCALHOST",
        "１２７.０.０.１",  # noqa: RUF001
        "127。0。0。1",
        "ⓛocalhost",
    ],
)
def test_no_way_of_writing_this_machine_gets_through(host):
    with pytest.raises(AddressRefused):
        http_client.look_up(f"https://{host}/", seconds=5)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com/store",
        "//hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@hooks.example.com/",
        "https://user:word@hooks.example.com/",
        "https://hooks.example.com@127.0.0.1/",
        "https://hooks.example.com\\@127.0.0.1/",
        "https://hooks.example.com\t.evil.example/",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/\r\nHost: other",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:port/",
        "https://[::1/",
        "https://hooks..example.com/",
        f"https://{'a' * 64}.example.com/",
        "https://hooks.example.com/ä",
        "https://hooks.example.com/\x00",
        f"https://hooks.example.com/{'a' * 2000}",
    ],
)
def test_what_is_no_clean_address_is_refused(url):
    with pytest.raises(AddressRefused):
        http_client.parse_url(url)


def test_an_address_is_taken_apart():
    assert http_client.parse_url("https://Hooks.example.com:8443/a/b?c=%20d#e") == http_client.Parts(
        "https", "hooks.example.com", 8443, "/a/b?c=%20d"
    )
    assert http_client.parse_url("http://bücher.example").host == "xn--bcher-kva.example"


def test_of_several_addresses_only_those_that_may_be_sent_to_are_kept(monkeypatch):
    leads_to(monkeypatch, "127.0.0.1", "1.1.1.1", "10.0.0.1")
    assert http_client.look_up("https://hooks.example.com/", seconds=1).ips == ("1.1.1.1",)


def test_an_operator_opens_a_network_and_no_other(monkeypatch, settings):
    settings.OUTBOX_ALLOWED_NETWORKS = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
    for ip in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5"):
        leads_to(monkeypatch, ip)
        assert http_client.look_up("http://internal.example/", seconds=1).ips == (ip,)
    for ip in ("10.2.0.1", "127.0.0.1", "fd00:2::5"):
        leads_to(monkeypatch, ip)
        with pytest.raises(AddressRefused, match="OUTBOX_ALLOWED_NETWORKS"):
            http_client.look_up("https://internal.example/", seconds=1)


def test_a_name_that_is_not_found_is_said_so(monkeypatch):
    def fails(*_, **__):
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(AddressRefused, match="cannot be found"):
        http_client.look_up("https://hooks.example.com/", seconds=1)
