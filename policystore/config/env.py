"""Reads the settings' environment variables, and refuses to start on a missing or unsafe one."""

from __future__ import annotations

import os
import secrets
import sys
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

PRODUCTION = "production"
LOCAL = "local"
MIN_SECRET_LENGTH = 50
EXAMPLE_URL = "https://policystore.example.com"


def stop(variable: str, problem: str) -> NoReturn:
    """End the process with one line that names the variable and says how to fix it."""
    sys.exit(f"policystore: {variable}: {problem}")


def mode() -> str:
    """`local` (the default) or `production`, by POLICYSTORE_MODE; anything else stops the start."""
    value = os.environ.get("POLICYSTORE_MODE", LOCAL)
    if value not in (LOCAL, PRODUCTION):
        stop("POLICYSTORE_MODE", f"{value!r} is not valid; set it to production, or unset it for a local store.")
    return value


def flag(variable: str, *, default: bool = False) -> bool:
    """A switch: 1/true/yes/on or 0/false/no/off; anything else stops the start."""
    value = os.environ.get(variable, "").strip().lower()
    if value == "":
        return default
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    stop(variable, f"{value!r} is not valid; set it to 1 or 0.")


def integer(variable: str, *, default: int, least: int = 0, most: int | None = None) -> int:
    """A whole number of at least `least` and at most `most`; anything else stops the start."""
    value = os.environ.get(variable, "").strip()
    if value == "":
        return default
    if not value.isdecimal() or int(value) < least or (most is not None and int(value) > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        stop(variable, f"{value!r} is not valid; set it to a whole number {bounds}.")
    return int(value)


def words(variable: str) -> list[str]:
    """A list, separated by commas or spaces."""
    return os.environ.get(variable, "").replace(",", " ").split()


def organizations(variable: str) -> dict[str, int | None]:
    """GitHub organizations by login in lower case, each with its numeric id where it is written as `login:id`."""
    found: dict[str, int | None] = {}
    for word in words(variable):
        login, colon, number = word.lower().partition(":")
        if colon and not (number.isdecimal() and 0 < int(number) < 2**63):
            stop(variable, f"{word!r} is not valid; list organizations as octo-org, or with an id as octo-org:583231.")
        found[login] = int(number) if colon else None
    return found


def networks(variable: str) -> list[IPv4Network | IPv6Network]:
    """A list of IP networks, each with its prefix length; anything else stops the start."""
    try:
        return [ip_network(word) for word in words(variable)]
    except ValueError as error:
        stop(variable, f"{error}; list networks such as 10.20.0.0/16.")


def choice(variable: str, among: tuple[str, ...], *, default: str) -> str:
    """One of these words; anything else stops the start."""
    value = os.environ.get(variable, "").strip().lower()
    if value and value not in among:
        stop(variable, f"{value!r} is not valid; set it to one of {', '.join(among)}.")
    return value or default


def web_address(variable: str, *, default: str = "") -> str:
    """An address without the slash at its end: https, or in a local store http too; anything else stops the start."""
    return _web_address(variable, os.environ.get(variable, "").strip()) or default


def web_addresses(variable: str) -> list[str]:
    """A list of such addresses."""
    return [_web_address(variable, word) for word in words(variable)]


def public_url(hosts: list[str]) -> str:
    """The store's own address by PUBLIC_URL, a scheme and host alone; anything else stops the start.

    The default is https and the first of `hosts` (ALLOWED_HOSTS) that names a single host; a local store has
    http://127.0.0.1:8000.
    """
    variable = "PUBLIC_URL"
    if mode() == LOCAL:
        default = "http://127.0.0.1:8000"
    else:
        host = next((host for host in hosts if not host.startswith((".", "*"))), "")
        default = f"https://{host}" if host else required(variable, f"set it to an address such as {EXAMPLE_URL}.")
    return own_address(variable, default=default)


def own_address(variable: str, *, default: str) -> str:
    """An address of the store's, a scheme and host alone; anything else stops the start."""
    value = web_address(variable, default=default)
    try:
        parts = urlsplit(value)
        is_valid = bool(parts.hostname) and parts.port != 0 and value == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        is_valid = False
    if not is_valid or "@" in value:
        stop(variable, f"{value!r} is not valid; set it to a scheme and a host name alone, such as {EXAMPLE_URL}.")
    return value


def _web_address(variable: str, value: str) -> str:
    if value and not value.startswith(("https://", "http://")):
        stop(variable, f"the address must start with https://, for example {EXAMPLE_URL}.")
    if value.startswith("http://") and mode() == PRODUCTION:
        stop(variable, "http:// is not secure; in production the address must start with https://.")
    return value.rstrip("/")


def required(variable: str, hint: str) -> str:
    """A variable that production requires."""
    value = os.environ.get(variable, "").strip()
    if not value:
        stop(variable, f"is not set; {hint}")
    return value


def production_secret(variable: str) -> str:
    """A secret long and varied enough to sign sessions with."""
    value = required(variable, "set it to a random text of at least 50 characters.")
    _refuse_weak(variable, value)
    return value


def optional_secret(variable: str) -> str:
    """A secret that may be left out; otherwise it must be as hard to guess."""
    value = os.environ.get(variable, "").strip()
    if value and mode() == PRODUCTION:
        _refuse_weak(variable, value)
    return value


def optional_secrets(variable: str) -> list[str]:
    """A list of such secrets."""
    values = words(variable)
    for value in values if mode() == PRODUCTION else []:
        _refuse_weak(variable, value)
    return values


def _refuse_weak(variable: str, value: str) -> None:
    if len(value) < MIN_SECRET_LENGTH or len(set(value)) < 5 or value.startswith("django-insecure-"):
        stop(variable, "is too easy to guess; set it to a random text of at least 50 characters.")


def production_hosts() -> list[str]:
    """The host names that the store answers to."""
    required("ALLOWED_HOSTS", "set it to the store's host names, separated by commas.")
    hosts = words("ALLOWED_HOSTS")
    for host in hosts:
        if set(host) <= set("*."):
            stop("ALLOWED_HOSTS", f"{host!r} matches every host name; list the store's own host names.")
        if "/" in host:
            stop("ALLOWED_HOSTS", f"{host!r} is not a host name; leave out https:// and the path.")
    return hosts


def production_database() -> str:
    """The address of the PostgreSQL database."""
    url = required("DATABASE_URL", "set it to postgresql://user:password@host:5432/name.")
    if not url.startswith(("postgres://", "postgresql://")):
        stop("DATABASE_URL", "the address must start with postgresql://.")
    return url


def local_secret(data_dir: Path) -> str:
    """The secret of a local store: created once, in a file that only its owner can read."""
    path = data_dir / "secret-key"
    if not path.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text()
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(60))
    return path.read_text()
