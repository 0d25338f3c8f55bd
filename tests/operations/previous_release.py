"""The release before this one: what its database had, and its code, where the repository's history is there."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# The newest migration of each app in the last release; they move on with the next one.
RELEASED = {
    "accounts": "0001_initial",
    "detections": "0001_initial",
    "inventory": "0001_initial",
    "outbox": "0001_initial",
    "policies": "0003_policy_by_attachments",
    "runners": "0003_job_run_counts",
    "traffic": "0001_initial",
}


def commit() -> str | None:
    """The last commit that had no later migrations; None in a shallow clone, or outside of a repository."""
    known = [f":(exclude){folder}/{name}" for folder in _FOLDERS for name in _released(folder)]
    try:
        later = _git("rev-list", "--reverse", "HEAD", "--", *(f"{folder}/0*.py" for folder in _FOLDERS), *known)
        first = later.decode().split()[0]
        return _git("rev-parse", "--verify", "--quiet", f"{first}^").decode().strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def unpack(folder: Path) -> None:
    """Put the release's code into a folder."""
    released = commit()
    assert released is not None
    with zipfile.ZipFile(io.BytesIO(_git("archive", "--format=zip", released))) as archive:
        archive.extractall(folder)


def _released(folder: str) -> list[str]:
    """The migrations in this folder that the release had; they are numbered without a gap."""
    newest = int(RELEASED[folder.split("/")[1]][:4])
    return [f"{number:04d}_*.py" for number in range(1, newest + 1)]


_FOLDERS = [f"policystore/{app}/migrations" for app in RELEASED]


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True).stdout
