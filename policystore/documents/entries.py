"""Checks one entry of `allowed-endpoints`, and makes of it the clean `host:port` that runners get."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from policystore.documents.never_allow import NeverAllow
from policystore.documents.problems import Problem, error, warning

USUAL_PORTS = (443, 80)
MAX_PORT = 65535
MAX_HOST = 253
_LABEL = re.compile(r"[A-Za-z0-9_*](?:[A-Za-z0-9_*-]{0,61}[A-Za-z0-9_*])?")

# What nothing can be said against, so that long lists are read in no time.
_USUAL = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z]{2,63}:(?:443|80)")
_ADDRESS_LIKE = re.compile(r"[0-9A-Fa-f:.]*[:.0-9][0-9A-Fa-f:.]*(?:/[0-9]{1,3})?")


class Entry(NamedTuple):
    """An entry as written, and where (1-based)."""

    text: str
    line: int
    column: int


def clean(entry: Entry) -> tuple[str | None, list[Problem]]:
    """The entry as `host:port` in lower case with the default port filled in (None where it is an error), and what is
    wrong with it."""
    if len(entry.text) <= MAX_HOST and _USUAL.fullmatch(entry.text):
        return entry.text, []
    for refuse in _REFUSALS:
        problem = refuse(entry)
        if problem is not None:
            return None, [problem]
    host, _, port = entry.text.partition(":")
    number = int(port) if port else 443
    return f"{host.lower()}:{number}", list(_doubts(entry, host, number))


def unlistable(endpoint: str) -> str:
    """Why no policy can list an endpoint that was observed, in a sentence; empty where one can."""
    cleaned, problems = clean(Entry(endpoint, 1, 1))
    return "" if cleaned is not None else problems[0].message


def refused_entry(entry: Entry, endpoint: str, never_allow: NeverAllow) -> Iterator[Problem]:
    """An error where the clean `endpoint` of an entry is never allowed, or is a wildcard that covers such a host."""
    refused = never_allow.refusing(endpoint)
    if refused is None:
        return
    what = f"covers {refused.host}, which is" if "*" in endpoint else "is"
    message = f"{shown(entry.text)} {what} never allowed in this organization: {refused.reason.rstrip('.')}."
    hint = "List the hosts that are needed instead." if "*" in endpoint else "Remove it."
    yield error(entry.line, entry.column, "never-allowed", message, hint)


def _refuse(entry: Entry, code: str, message: str, hint: str) -> Problem:
    return error(entry.line, entry.column, code, f"{shown(entry.text)} {message}", hint)


def shown(text: str) -> str:
    """The entry as a message quotes it: at most 80 characters."""
    return text if len(text) <= 80 else f"{text[:77]}…"


def _scheme(entry: Entry) -> Problem | None:
    scheme, found, rest = entry.text.partition("://")
    if not found:
        return None
    host = re.split(r"[/?#]", rest)[0].rpartition("@")[2] or "host"
    port = ":80" if scheme.lower() == "http" else ":443"
    right = host if ":" in host else f"{host}{port}"
    return _refuse(
        entry, "endpoint-scheme", "has a scheme; an endpoint is a host and a port.", f"Write {shown(right)}."
    )


def _comma(entry: Entry) -> Problem | None:
    if "," not in entry.text and ";" not in entry.text:
        return None
    return _refuse(entry, "endpoint-comma", "has a comma or semicolon in it.", "Separate endpoints by spaces or lines.")


def _address(entry: Entry) -> Problem | None:
    host = entry.text if entry.text.count(":") > 1 else entry.text.partition(":")[0]
    for candidate in (host, host.strip("[]"), re.sub(r"^\[(.*)\](:.*)?$", r"\1", entry.text)):
        if _is_network(candidate):
            what = "is a network" if "/" in candidate else "is an IP address"
            message = f"{what}; the agent would take it for a domain name and never match it."
            return _refuse(entry, "endpoint-address", message, "Write the host's domain name.")
    return None


def _is_network(text: str) -> bool:
    # A bare number counts as an address to the library; here it is a host name of one label.
    if (
        len(text) > MAX_HOST
        or text.isdecimal()
        or (text.count(".") != 3 and text.count(":") < 2)
        or not _ADDRESS_LIKE.fullmatch(text)
    ):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _characters(entry: Entry) -> Problem | None:
    text = entry.text
    if "@" in text:
        return _refuse(entry, "endpoint-userinfo", "has a user name in it.", f"Write {shown(text.rpartition('@')[2])}.")
    if any(bracket in text for bracket in "[]{}()<>\"'"):
        return _refuse(entry, "endpoint-bracket", "has brackets or quotes in it.", "Write host:port and nothing else.")
    if "/" in text:
        return _refuse(entry, "endpoint-path", "has a path; an endpoint is a host and a port.", "Remove the path.")
    if not text.isascii():
        return _refuse(entry, "endpoint-not-ascii", "has characters that no host name has.", _punycode_hint(text))
    return None


def _punycode_hint(text: str) -> str:
    # No host is longer, and a long text takes long.
    if len(text) <= MAX_HOST:
        with suppress(UnicodeError):
            return f"Write {shown(text.encode('idna').decode())}."
    return "Use letters, digits, hyphens, underscores and dots."


def _port(entry: Entry) -> Problem | None:
    host, colon, port = entry.text.partition(":")
    if not colon:
        return None
    if ":" in port:
        return _refuse(entry, "endpoint-colons", "has more than one colon.", f"Write {shown(host or 'host')}:443.")
    if not port.isdecimal():
        return _refuse(entry, "endpoint-port", "has no number as its port.", f"Write {shown(host or 'host')}:443.")
    if len(port) > 5 or not 1 <= int(port) <= MAX_PORT:
        return _refuse(entry, "endpoint-port", f"has a port outside 1 to {MAX_PORT}.", f"Write {shown(host)}:443.")
    return None


def _host(entry: Entry) -> Problem | None:
    host = entry.text.partition(":")[0]
    if host == "":
        return _refuse(entry, "endpoint-host", "has no host.", "Write host:port.")
    if host.endswith("."):
        hint = f"Write {shown(host.rstrip('.'))}."
        return _refuse(entry, "endpoint-host", "ends its host in a dot, which the agent would double.", hint)
    if len(host) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        hint = "Use labels of at most 63 letters, digits, hyphens and underscores, with dots between."
        return _refuse(entry, "endpoint-host", "has a host that no domain name can be.", hint)
    return None


_REFUSALS: tuple[Callable[[Entry], Problem | None], ...] = (_scheme, _comma, _address, _characters, _port, _host)


def _doubts(entry: Entry, host: str, port: int) -> Iterator[Problem]:
    def doubt(code: str, message: str, hint: str = "") -> Problem:
        return warning(entry.line, entry.column, code, f"{shown(entry.text)} {message}", hint)

    if host == "*":
        yield doubt("bare-wildcard", "matches every host.", "List the hosts, or write *.example.com.")
    elif host.count("*") > 1:
        yield doubt("second-wildcard", "has a second *, so it never matches.", "Use one * an entry.")
    elif re.search(r"\*[^.]", host):
        other = host.replace("*", "evil", 1)
        yield doubt("open-wildcard", f"also matches hosts such as {shown(other)}.", "Put a dot after the *.")
    elif "." not in host:
        yield doubt("single-label", "is a host without a dot; is it a word of a comment?", "Comments start with #.")
    if host != host.lower():
        yield doubt("upper-case", "has upper case; the agent compares case, so it is served in lower case.")
    if port not in USUAL_PORTS:
        yield doubt("unusual-port", "has a port other than 443 and 80.")
