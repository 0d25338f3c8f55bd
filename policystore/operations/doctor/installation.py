"""Checks of this machine, its settings, and what the store needs from the network (each asks once, in limited time)."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import requests
from cryptography import x509
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core import checks
from django.http.request import split_domain_port, validate_host

from policystore.accounts import github
from policystore.inventory.models import Organization
from policystore.operations import health
from policystore.operations.certificates import RENEW_BEFORE
from policystore.operations.health import Finding, good, problem, warning
from policystore.runners import oidc

MEBIBYTE = 1024 * 1024
LITTLE_ROOM = 1024 * MEBIBYTE
# One file of each origin: the store itself, and the packages that pages need.
STATIC_FILES = ("css/layers.css", "js/menus.js", "django_htmx/htmx-2.min.js", "django_ace/ace/ace.js")
CERTIFICATES = ("authority.pem", "server.pem")
NETWORK_SECONDS = 5.0
# GitHub's ids begin at 1.
NOBODY = 0


def sqlite_file() -> Path | None:
    """Return the path of the SQLite database; None on PostgreSQL."""
    database = settings.DATABASES["default"]
    return Path(database["NAME"]) if "sqlite" in database["ENGINE"] else None


def database_name() -> str:
    """Return the path of the SQLite database, or the name and host of the PostgreSQL database."""
    if file := sqlite_file():
        return str(file)
    database = settings.DATABASES["default"]
    return f"the database {database['NAME']} on {database.get('HOST') or 'the local server'}"


def files_are_private() -> Finding | None:
    """Check that a local store's files can be written by this user and read by no other."""
    database = sqlite_file()
    if database is None:
        return None
    folder = database.parent
    files = [database, *(database.with_name(f"{database.name}{ending}") for ending in ("-wal", "-shm"))]
    unwritable = [path for path in (folder, *files) if path.exists() and not os.access(path, os.W_OK)]
    if unwritable:
        return problem(f"{unwritable[0]} cannot be written by this user; give it to the user who runs the store.")
    for path in (settings.DATA_DIR / "secret-key", settings.DATA_DIR / "tls" / "authority.key"):
        if _others_read(path):
            return problem(f"{path} can be read by other users of this machine; run `chmod go= {path}`.")
    if any(map(_others_read, files)):
        return warning(f"Other users of this machine can read the database; run `chmod go= {folder}`.")
    return good(f"Only this user can access the store's files in {folder}.")


def _others_read(path: Path) -> bool:
    """Return True if users other than the owner can read the file and enter its folder."""
    return path.exists() and bool(path.stat().st_mode & 0o044 and path.parent.stat().st_mode & 0o011)


def there_is_room() -> Finding:
    """Check that there is room on the disk of the database; if that is elsewhere, on the disk of the store itself."""
    database = sqlite_file()
    folder = database.parent if database else settings.BASE_DIR
    free = shutil.disk_usage(folder).free
    room = f"{folder} has {free // MEBIBYTE:,} MiB of free space"
    if free < health.LEAST_FREE_BYTES:
        return problem(f"{room}; the disk is full.")
    return warning(f"{room}; free some before the disk is full.") if free < LITTLE_ROOM else good(f"{room}.")


def static_files_are_there() -> Finding:
    """Check that pages find their style sheets and scripts."""
    missing = [name for name in STATIC_FILES if finders.find(name) is None]
    if missing:
        return problem(f"The static file {missing[0]} is missing; run `python3 -m uv sync --no-dev` in the checkout.")
    return good("Style sheets and scripts are installed.")


def certificates_are_good() -> Finding | None:
    """Check how long the certificates of `quickstart --tls` are valid; None if there are none."""
    paths = [path for name in CERTIFICATES if (path := settings.DATA_DIR / "tls" / name).exists()]
    if not paths:
        return None
    ends, path = min((x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc, path) for path in paths)
    validity = f"{path.name} is valid until {ends:%Y-%m-%d}"
    if ends < datetime.now(UTC):
        return problem(f"{path.name} expired on {ends:%Y-%m-%d}; restart `quickstart --tls`, which creates a new one.")
    if ends < datetime.now(UTC) + RENEW_BEFORE:
        return warning(f"{validity}; restart `quickstart --tls`, which creates a new one.")
    return good(f"{validity}.")


def django_agrees() -> Finding:
    """Run Django's own checks; in production, including those for deployment."""
    findings = checks.run_checks(include_deployment_checks=settings.PRODUCTION)
    serious = [message for message in findings if message.level >= checks.WARNING]
    mode = "production" if settings.PRODUCTION else "local"
    if not serious:
        return good(f"The settings are in order (mode: {mode}).")
    return problem("; ".join(f"{message.msg} ({message.id})" for message in serious))


def secrets_are_apart() -> Finding | None:
    """In production, check that SECRET_KEY can be changed without losing API keys and stored secrets."""
    if not settings.PRODUCTION:
        return None
    missing = []
    if settings.API_KEY_SECRET == settings.SECRET_KEY:
        missing.append("API_KEY_SECRET")
    if settings.ENCRYPTION_KEYS[0] == settings.SECRET_KEY:
        missing.append("ENCRYPTION_KEYS")
    if not missing:
        return good("API keys and stored secrets do not depend on SECRET_KEY.")
    names = " and ".join(missing)
    return warning(f"{names} not set, so SECRET_KEY is used. Before you change it, set its present value there.")


def public_url() -> Finding:
    """Check that links to the store, and the addresses on its pages, reach it."""
    for name in ("PUBLIC_URL", "RUNNER_URL"):
        address = getattr(settings, name)
        host = split_domain_port(urlsplit(address).netloc)[0]
        if not validate_host(host, settings.ALLOWED_HOSTS):
            return problem(
                f"{name} is {address}, but ALLOWED_HOSTS does not list {host}: the store refuses its own links."
            )
    if settings.PRODUCTION and "PUBLIC_URL" not in os.environ and len(settings.ALLOWED_HOSTS) > 1:
        return warning(
            f"PUBLIC_URL is not set, so links and installation pages use {settings.PUBLIC_URL}, from the first of"
            " ALLOWED_HOSTS."
        )
    return good(f"Links and installation pages use {settings.PUBLIC_URL}.")


def https_is_forwarded() -> Finding | None:
    """In production, check that the proxy reports to the store when people use https."""
    if not settings.PRODUCTION:
        return None
    if settings.TRUST_FORWARDED_HEADERS:
        return good("The proxy's X-Forwarded-Proto is trusted; make sure that only the proxy can reach the store.")
    return warning("TRUST_FORWARDED_HEADERS is not set: behind a proxy, every page would redirect to itself.")


def issuers_answer() -> Finding:
    """Check that every OIDC issuer returns its keys; without them, jobs that send a token run in audit mode."""
    for issuer in settings.OIDC_ISSUERS:
        try:
            keys = oidc.published_keys(issuer)
        except oidc.IssuerUnavailable as error:
            return warning(f"The OIDC issuer {issuer} does not return its keys, which `policy:` needs: {error}")
        if not keys:
            return warning(f"The OIDC issuer {issuer} publishes no key of the kind that `policy:` needs.")
    return good(f"OIDC issuers answer: {', '.join(settings.OIDC_ISSUERS)}.")


def github_answers() -> Finding | None:
    """Check that people can sign in with GitHub, if that is set up."""
    if not settings.GITHUB_CLIENT_ID:
        return None
    try:
        requests.head(settings.GITHUB_URL, timeout=NETWORK_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        return problem(f"{settings.GITHUB_URL} cannot be reached, so nobody can sign in: {type(error).__name__}.")
    return good(f"{settings.GITHUB_URL} answers.")


def organizations_are_the_same() -> Finding | None:
    """Check that each allowed login still belongs to the organization with the id that the store knows.

    Returns None if no id is known yet, or GitHub does not say which organization has a login.
    """
    if not settings.GITHUB_CLIENT_ID:
        return None
    known = Organization.objects.filter(key__in=settings.GITHUB_ALLOWED_ORGANIZATIONS, github_id__isnull=False)
    asked = [(one, _present_id(one.login)) for one in known.order_by("key")]
    for organization, present in asked:
        if present == NOBODY:
            return warning(
                f"GitHub has no organization named {organization.login}. If it was renamed, its members still get in; "
                "do not leave the old name free for others to register."
            )
        if present not in (None, organization.github_id):
            return problem(
                f"The GitHub organization {organization.login} has the id {present}, but this store belongs to the id "
                f"{organization.github_id}: another account has registered the name, and its members are refused. If "
                f"it is the right one, set GITHUB_ALLOWED_ORGANIZATIONS={organization.login}:{present}."
            )
    if not any(present for _, present in asked):
        return None
    return good("The organizations on GitHub have the ids that this store knows.")


def _present_id(login: str) -> int | None:
    """The id of the organization that has this login on GitHub now, NOBODY, or None where GitHub does not say."""
    address = f"{github.api_url()}/orgs/{quote(login, safe='')}"
    try:
        response = requests.get(address, timeout=NETWORK_SECONDS, allow_redirects=False)
        if response.status_code == 404:
            return NOBODY
        found = response.json().get("id") if response.status_code == 200 else None
    except (requests.RequestException, ValueError, AttributeError, RecursionError):
        return None
    return found if github.is_id(found) else None
