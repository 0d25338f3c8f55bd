"""A bundle's files on the disk."""

from __future__ import annotations

from pathlib import Path

from policystore.policy_language.bundle import is_of_bundle

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
