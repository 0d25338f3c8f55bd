"""Policy as code: an organization's policies as a folder of files that people keep in Git.

    policystore.yaml                     format and organization
    policies/NAME/policy.yaml            the policy's text, byte for byte
    policies/NAME/about.yaml             its description, and the scopes that it is attached to
    endpoint-sets/NAME/endpoints.yaml    the set's text, byte for byte
    endpoint-sets/NAME/about.yaml        its description

A folder's name is the name of the policy or set. Files are read with the guard that policies are read with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from policystore.documents.problems import Problem, error
from policystore.documents.scopes import Scope
from policystore.documents.words import closest_hint
from policystore.documents.yaml_guard import Mapping as YamlMapping
from policystore.documents.yaml_guard import Node, Scalar, Sequence, read

FORMAT = "1"
MANIFEST = "policystore.yaml"
POLICIES, SETS = "policies", "endpoint-sets"
POLICY_TEXT, SET_TEXT, ABOUT = "policy.yaml", "endpoints.yaml", "about.yaml"
# A policy may be attached to very many scopes.
MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BundledPolicy:
    """A policy and where it is attached; `scopes` are in order and each once."""

    name: str
    text: str
    description: str = ""
    scopes: tuple[Scope, ...] = ()


@dataclass(frozen=True, slots=True)
class BundledSet:
    """An endpoint set."""

    name: str
    text: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything of an organization that is kept as code, sorted by name without case."""

    organization: str
    policies: tuple[BundledPolicy, ...] = ()
    sets: tuple[BundledSet, ...] = ()


class BrokenBundle(ValueError):
    """The files cannot be taken; `problems` pairs each problem with the file that it is in."""

    def __init__(self, problems: Iterable[tuple[str, Problem]]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(told(path, problem) for path, problem in self.problems))


def told(path: str, problem: Problem) -> str:
    """A problem in one line, as compilers tell it: `policies/ci/about.yaml:3:5: …`."""
    return f"{path}:{problem.line}:{problem.column}: {problem.message} {problem.hint}".rstrip()


def write(bundle: Bundle) -> dict[str, str]:
    """The bundle's files: their paths, with slashes, and their texts. The same bundle always gives the same bytes."""
    manifest: dict[str, Any] = {"format": int(FORMAT), "organization": bundle.organization}
    files = {MANIFEST: _yaml(manifest)}
    for policy in bundle.policies:
        about = {"description": policy.description, "attached-to": [scope.key for scope in policy.scopes]}
        files[f"{POLICIES}/{policy.name}/{POLICY_TEXT}"] = policy.text
        files[f"{POLICIES}/{policy.name}/{ABOUT}"] = _yaml(about)
    for endpoint_set in bundle.sets:
        files[f"{SETS}/{endpoint_set.name}/{SET_TEXT}"] = endpoint_set.text
        files[f"{SETS}/{endpoint_set.name}/{ABOUT}"] = _yaml({"description": endpoint_set.description})
    return files


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), allow_unicode=True, sort_keys=False, width=1000)


def is_of_bundle(path: str) -> bool:
    """Whether a path, with slashes, is one that a bundle may have; others in the folder are left alone."""
    parts = PurePosixPath(path).parts
    if len(parts) == 1:
        return parts[0] == MANIFEST
    names = {POLICIES: (POLICY_TEXT, ABOUT), SETS: (SET_TEXT, ABOUT)}
    return len(parts) == 3 and parts[2] in names.get(parts[0], ())


def read_files(files: Mapping[str, str]) -> Bundle:
    """The bundle in these files (paths with slashes, and texts). Raises BrokenBundle with every problem."""
    reading = _Reading(files)
    bundle = reading.bundle()
    if reading.problems:
        raise BrokenBundle(reading.problems)
    return bundle


@dataclass(slots=True)
class _Reading:
    files: Mapping[str, str]
    problems: list[tuple[str, Problem]] = field(default_factory=list)

    def bundle(self) -> Bundle:
        manifest = self._manifest()
        policies = [self._policy(name, folder) for name, folder in self._folders(POLICIES, POLICY_TEXT)]
        sets = [self._set(name, folder) for name, folder in self._folders(SETS, SET_TEXT)]
        self._refuse_scopes_of_two(policies)
        return Bundle(
            organization=manifest.organization,
            policies=tuple(sorted(policies, key=lambda policy: policy.name.lower())),
            sets=tuple(sorted(sets, key=lambda endpoint_set: endpoint_set.name.lower())),
        )

    def _folders(self, kind: str, text_file: str) -> Iterator[tuple[str, str]]:
        """The names below a folder that have their text; two that differ in case alone name the same thing."""
        names = sorted({PurePosixPath(path).parts[1] for path in self.files if path.startswith(f"{kind}/")})
        seen: dict[str, str] = {}
        for name in names:
            folder = f"{kind}/{name}"
            if f"{folder}/{text_file}" not in self.files:
                self._error(f"{folder}/{text_file}", None, "missing-file", "The file is missing.", "Add it.")
            elif name.lower() in seen:
                message = f"{name} and {seen[name.lower()]} are the same name; names compare without case."
                self._error(f"{folder}/{text_file}", None, "name-twice", message, "Keep one of them.")
            else:
                seen[name.lower()] = name
                yield name, folder

    def _manifest(self) -> Bundle:
        path = MANIFEST
        if path not in self.files:
            self._error(path, None, "missing-file", "The file is missing.", "Point to a folder that export wrote.")
            return Bundle("")
        values = self._mapping(path, ("format", "organization"))
        written = self._text(path, values.get("format"), "format")
        if written != FORMAT and not self.problems:
            message = f"The format is {written[:20]!r}; this release reads {FORMAT}."
            self._error(path, values.get("format"), "unknown-format", message)
        organization = self._text(path, values.get("organization"), "organization")
        try:
            organization = Scope.for_organization(organization).owner
        except ValueError as refusal:
            self._error(path, values.get("organization"), "no-organization", str(refusal))
        return Bundle(organization)

    def _policy(self, name: str, folder: str) -> BundledPolicy:
        path = f"{folder}/{ABOUT}"
        values = self._mapping(path, ("description", "attached-to")) if path in self.files else {}
        scopes = [self._scope(path, node) for node in self._items(path, values.get("attached-to"), "attached-to")]
        return BundledPolicy(
            name=name,
            text=self.files[f"{folder}/{POLICY_TEXT}"],
            description=self._optional(path, values, "description"),
            scopes=tuple(sorted({scope for scope in scopes if scope})),
        )

    def _set(self, name: str, folder: str) -> BundledSet:
        path = f"{folder}/{ABOUT}"
        values = self._mapping(path, ("description",)) if path in self.files else {}
        return BundledSet(name, self.files[f"{folder}/{SET_TEXT}"], self._optional(path, values, "description"))

    def _scope(self, path: str, node: Node) -> Scope | None:
        written = self._text(path, node, "attached-to")
        try:
            return Scope.from_key(written) if written else None
        except ValueError as refusal:
            self._error(path, node, "no-scope", str(refusal))
            return None

    def _refuse_scopes_of_two(self, policies: Iterable[BundledPolicy]) -> None:
        holders: dict[Scope, str] = {}
        for policy in policies:
            for scope in policy.scopes:
                if scope in holders:
                    message = f"{scope.key} is attached to {holders[scope]} too; a scope holds one policy."
                    path = f"{POLICIES}/{policy.name}/{ABOUT}"
                    self._error(path, None, "scope-twice", message, "Take it from one of them.")
                holders.setdefault(scope, policy.name)

    def _mapping(self, path: str, known: tuple[str, ...]) -> dict[str, Node]:
        root, problems = read(self.files[path], max_bytes=MAX_BYTES)
        self.problems += [(path, problem) for problem in problems]
        if root is None:
            return {}
        if not isinstance(root, YamlMapping):
            self._error(path, root, "no-mapping", "The file is a set of keys with values.")
            return {}
        return self._known(path, root, known)

    def _known(self, path: str, mapping: YamlMapping, known: tuple[str, ...]) -> dict[str, Node]:
        for key, _ in mapping.pairs:
            if key.value not in known:
                hint = closest_hint(key.value, known) or f"Known keys: {', '.join(known)}."
                self._error(path, key, "unknown-key", f"{key.value[:60]} is no key of this file.", hint)
        return {key.value: value for key, value in mapping.pairs}

    def _items(self, path: str, node: Node | None, key: str) -> list[Node]:
        if node is None or (isinstance(node, Scalar) and node.value == ""):
            return []
        if not isinstance(node, Sequence):
            self._error(path, node, "wrong-type", f"{key} takes a list.", "Write each entry after a hyphen.")
            return []
        return node.items

    def _optional(self, path: str, values: Mapping[str, Node], key: str) -> str:
        node = values.get(key)
        if node is None or (isinstance(node, Scalar) and node.value == ""):
            return ""
        return self._text(path, node, key).strip()

    def _text(self, path: str, node: Node | None, key: str) -> str:
        if not isinstance(node, Scalar) or node.value == "":
            if path in self.files:
                self._error(path, node, "missing-value", f"{key} has no text.", "Write one.")
            return ""
        return node.value

    def _error(self, path: str, node: Node | None, code: str, message: str, hint: str = "") -> None:
        line, column = (node.line, node.column) if node is not None else (1, 1)
        self.problems.append((path, error(line, column, code, message, hint)))
