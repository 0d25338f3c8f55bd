"""Guards against server-side request forgery: resolves and checks a URL at each send, and connects to what it checked.

Owners of an organization choose the addresses, so an unchecked one would let them reach the store's own network.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from django.conf import settings

MAX_LENGTH = 2000
Address = IPv4Address | IPv6Address

_WRITABLE = re.compile(r"[!-\[\]-~\u00a1-\U0010ffff]+")
# What the standards set aside, and what clouds answer metadata on; more than `is_global` of every Python refuses.
_CLOSED_V4 = [
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
# Of IPv6 only global unicast is open, less what is embedded IPv4, tunnels and documentation. NAT64 is outside of it.
_OPEN_V6 = ip_network("2000::/3")
_CLOSED_V6 = [ip_network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]


class AddressRefused(ValueError):
    """The address cannot be sent to; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Parts:
    """An address taken apart; `host` is in ASCII."""

    scheme: str
    host: str
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Checked:
    """An address that may be sent to, and the IP addresses behind it that passed."""

    parts: Parts
    ips: tuple[str, ...]


def parse(url: str) -> Parts:
    """Take an http(s) address apart. Raises AddressRefused for what is none, or has a user name in it."""
    if len(url) > MAX_LENGTH or not _WRITABLE.fullmatch(url):
        raise AddressRefused("Enter an address without spaces, of at most 2,000 characters.")
    try:
        split = urlsplit(url)
        host, port = (split.hostname or "").encode("idna").decode("ascii"), split.port
    except (ValueError, UnicodeError) as error:
        raise AddressRefused(
            "This is not a valid address. Enter one such as https://hooks.example.com/store."
        ) from error
    if split.scheme not in ("https", "http") or not host:
        raise AddressRefused("Enter the whole address, including https://.")
    if "@" in split.netloc:
        raise AddressRefused("Leave the user name and password out of the address; send them in a header.")
    if port == 0:
        raise AddressRefused("0 is not a valid port.")
    target = (split.path or "/") + (f"?{split.query}" if split.query else "")
    if not target.isascii():
        raise AddressRefused("Percent-encode the path of the address, so that it is all ASCII.")
    return Parts(split.scheme, host, port or (443 if split.scheme == "https" else 80), target)


def look_up(url: str, *, seconds: float) -> Checked:
    """Ask for the IP addresses behind an address and keep those that may be sent to. Raises AddressRefused.

    Clear text goes only to networks that OUTBOX_ALLOWED_NETWORKS names.
    """
    parts = parse(url)
    found = _resolve(parts.host, parts.port, seconds)
    allowed = tuple(ip for ip in found if is_named(ip) or (parts.scheme == "https" and is_public(ip)))
    if allowed:
        return Checked(parts, allowed)
    if any(is_public(ip) for ip in found):
        raise AddressRefused(f"{parts.host} is on a public network; only https is sent there.")
    raise AddressRefused(
        f"{parts.host} resolves to {found[0]}, which is not public. Use OUTBOX_ALLOWED_NETWORKS to allow a network."
    )


def is_public(ip: str) -> bool:
    """Return True for a global unicast IP address; False for private and every other special one."""
    address = _parsed(ip)
    if address is None or not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def is_named(ip: str) -> bool:
    """Return True if OUTBOX_ALLOWED_NETWORKS contains this IP address."""
    address = _parsed(ip)
    return address is not None and any(address in network for network in settings.OUTBOX_ALLOWED_NETWORKS)


def _parsed(ip: str) -> Address | None:
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def _resolve(host: str, port: int, seconds: float) -> Sequence[str]:
    """The IP addresses of a host. In a thread, since nothing else ends a name server that does not answer."""
    found: list[str] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(row[4][0]) for row in rows))
        except (OSError, UnicodeError) as error:
            errors.append(error)

    thread = threading.Thread(target=ask, name="look-up", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.01))
    if errors or not found:
        how = "cannot be found" if not thread.is_alive() else "was not found in time"
        raise AddressRefused(f"The host {host} {how}.")
    return tuple(found)
