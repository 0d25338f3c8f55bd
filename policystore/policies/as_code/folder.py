"""Policy as code as a folder: the store as a bundle, and the files of a bundle on the disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.models import Attachment, EndpointSet, NeverAllowHost, Policy, PolicyException, StagedVersion
from policystore.policy_language.bundle import (
    Bundle,
    BundledException,
    BundledHost,
    BundledPolicy,
    BundledSet,
    BundledStaged,
    is_of_bundle,
)
from policystore.policy_language.scopes import Scope, overlap

MAX_FILE_BYTES = 8 * 1024 * 1024


class Unreadable(ValueError):
    """A file cannot be read as text; `str()` says which and why."""


def read_folder(folder: Path) -> dict[str, str]:
    """The files that belong to a bundle, by their path with slashes; other files are ignored.

    Raises Unreadable.
    """
    if not folder.is_dir():
        raise Unreadable(f"{folder} is not a folder. Name a folder that `export` wrote.")
    return {path: _text(folder / path) for path in _listed(folder)}


def write_folder(folder: Path, files: dict[str, str]) -> list[str]:
    """Write the files, and remove those of the bundle's places that it no longer has; returns what was removed.

    Files that are as they should be are not touched, and neither is what is not a bundle's, such as `.git`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gone = [path for path in _listed(folder) if path not in files]
    for path in gone:
        (folder / path).unlink()
        _remove_if_empty((folder / path).parent)
    for path, text in files.items():
        _write(folder / path, text.encode())
    return gone


def _listed(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml") if path.is_file())
    return sorted(path for path in found if is_of_bundle(path))


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Unreadable(f"{path} has more than {MAX_FILE_BYTES // 2**20} MiB; it is not a file of a bundle.")
    try:
        # Bytes, since the line ends of a policy's text are part of it.
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path} cannot be read as UTF-8: {error}") from error


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def stored_bundle(organization: Organization) -> Bundle:
    """Everything of an organization, as a bundle; canary scopes as far as they share jobs with their policy's."""
    scopes: defaultdict[int, list[Scope]] = defaultdict(list)
    attached = Attachment.objects.filter(organization=organization).values_list("policy_id", "scope_key")
    for policy_id, scope_key in attached.iterator():
        scopes[policy_id].append(Scope.from_key(scope_key))
    rows = Policy.objects.filter(organization=organization).order_by("name_key")
    exceptions_by_policy, staged = _open_exceptions(organization), _staged(organization)
    policies = tuple(
        BundledPolicy(
            row.name,
            row.text,
            row.description,
            tuple(sorted(scopes[row.pk])),
            tuple(exceptions_by_policy[row.pk]) if row.pk in exceptions_by_policy else None,
            _covered(staged.get(row.pk), scopes[row.pk]),
        )
        for row in rows.only("pk", "name", "text", "description").iterator()
    )
    sets = EndpointSet.objects.filter(organization=organization).order_by("name_key")
    return Bundle(
        organization.key,
        policies,
        tuple(BundledSet(*values) for values in sets.values_list("name", "text", "description")),
        _hosts(organization) or None,
    )


def _hosts(organization: Organization) -> tuple[BundledHost, ...]:
    rows = NeverAllowHost.objects.filter(organization=organization).values_list("host", "reason")
    return tuple(BundledHost(host, reason) for host, reason in sorted(rows))


def _open_exceptions(organization: Organization) -> dict[int, list[BundledException]]:
    found: defaultdict[int, list[BundledException]] = defaultdict(list)
    rows = PolicyException.objects.active().filter(organization=organization).select_related("policy")
    never_allow = compiler.never_allow_of(organization)
    for row in rows.order_by("endpoint").iterator():
        is_idle = never_allow.refusing(row.endpoint) is not None or row.endpoint in row.policy.listed_endpoints
        exception = BundledException(row.endpoint, row.owner, row.reason, row.expires_at, is_idle=is_idle)
        found[row.policy_id].append(exception)
    return found


def _staged(organization: Organization) -> dict[int, BundledStaged]:
    rows = StagedVersion.objects.filter(policy__organization=organization).prefetch_related("canaries")
    return {
        row.pk: BundledStaged(row.text, tuple(sorted(canary.scope for canary in row.canaries.all()))) for row in rows
    }


def _covered(staged: BundledStaged | None, held: Collection[Scope]) -> BundledStaged | None:
    if staged is None:
        return None
    canaries = (scope for scope in staged.canaries if any(overlap(scope, other) for other in held))
    return replace(staged, canaries=tuple(canaries))
