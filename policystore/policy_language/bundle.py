"""Policy as code: an organization's policies as a folder of files that people keep in Git.

    policystore.yaml                     format and organization
    policies/NAME/policy.yaml            the policy's text, byte for byte
    policies/NAME/about.yaml             its description, and the scopes that it is attached to
    policies/NAME/exceptions.yaml        its open exceptions
    policies/NAME/staged.yaml            the text of its staged version, byte for byte; nothing is staged where empty
    policies/NAME/canaries.yaml          the scopes that get the staged version
    endpoint-sets/NAME/endpoints.yaml    the set's text, byte for byte
    endpoint-sets/NAME/about.yaml        its description
    never-allow.yaml                     the hosts that no policy may allow, and why

A folder's name is the name of the policy or set. What has no file is not kept as code: without `never-allow.yaml`, and
for a policy without `exceptions.yaml` or `staged.yaml`, the store's own stay as they are. The files
are read with the guard that policies are read with, and every problem is reported with its file and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import PurePosixPath
from typing import Any

import yaml

from policystore.policy_language.endpoint_sets import check_set
from policystore.policy_language.problems import START, Problem, error, quoted
from policystore.policy_language.scopes import Scope
from policystore.policy_language.values import closest_hint, in_utc
from policystore.policy_language.yaml_reader import Limits, Node, Scalar, Sequence, read
from policystore.policy_language.yaml_reader import Mapping as YamlMapping

FORMAT = "1"
MANIFEST, NEVER_ALLOW = "policystore.yaml", "never-allow.yaml"
POLICIES, SETS = "policies", "endpoint-sets"
POLICY_TEXT, SET_TEXT, ABOUT = "policy.yaml", "endpoints.yaml", "about.yaml"
EXCEPTIONS, STAGED_TEXT, CANARIES = "exceptions.yaml", "staged.yaml", "canaries.yaml"


@dataclass(frozen=True, slots=True)
class BundledException:
    """An endpoint that a policy allows until a given time, in UTC; `line` is its line in the file.

    An exception is idle if it could not be added now: the policy lists its endpoint by now, or the organization never
    allows it.
    """

    endpoint: str
    owner: str
    reason: str
    until: datetime
    line: int = field(default=1, compare=False)
    is_idle: bool = field(default=False, compare=False)

    @property
    def _until(self) -> str:
        is_whole = self.until.second == self.until.microsecond == 0
        until = self.until.replace(tzinfo=None)
        return until.isoformat(" ", "minutes" if is_whole else "auto")

    def __str__(self) -> str:
        return f"{self.endpoint} until {self._until} UTC, owner {self.owner}: {self.reason}"


@dataclass(frozen=True, slots=True)
class BundledStaged:
    """A staged version and its canary scopes, in order and each once."""

    text: str
    canaries: tuple[Scope, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """True if nothing is staged."""
        return not self.text.strip()


NOTHING_STAGED = BundledStaged("")


@dataclass(frozen=True, slots=True)
class BundledPolicy:
    """A policy and where it is attached; `scopes` are in order and each once, exceptions in order of their endpoint.

    `exceptions` and `staged` are None where they are not kept as code.
    """

    name: str
    text: str
    description: str = ""
    scopes: tuple[Scope, ...] = ()
    exceptions: tuple[BundledException, ...] | None = None
    staged: BundledStaged | None = None


@dataclass(frozen=True, slots=True)
class BundledSet:
    """An endpoint set."""

    name: str
    text: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class BundledHost:
    """A host that no policy may allow, and why; `line` is where the file has it."""

    host: str
    reason: str
    line: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything of an organization that is kept as code, sorted by name without case.

    `never_allow` is None where that is not kept as code.
    """

    organization: str
    policies: tuple[BundledPolicy, ...] = ()
    sets: tuple[BundledSet, ...] = ()
    never_allow: tuple[BundledHost, ...] | None = None


class BrokenBundle(ValueError):
    """The files are not a valid bundle; `problems` pairs each problem with the path of its file."""

    def __init__(self, problems: Iterable[tuple[str, Problem]]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(describe(path, problem) for path, problem in self.problems))


def describe(path: str, problem: Problem) -> str:
    """A problem in one line, in the format of compilers: `policies/ci/about.yaml:3:5: …`."""
    return f"{path}:{problem.line}:{problem.column}: {problem.message} {problem.hint}".rstrip()


def write(bundle: Bundle) -> dict[str, str]:
    """The bundle's files: their paths, with slashes, and their texts. The same bundle always gives the same bytes."""
    manifest: dict[str, Any] = {"format": int(FORMAT), "organization": bundle.organization}
    files = {MANIFEST: _yaml(manifest)}
    for policy in bundle.policies:
        about = {"description": policy.description, "attached-to": [scope.key for scope in policy.scopes]}
        files[f"{POLICIES}/{policy.name}/{POLICY_TEXT}"] = policy.text
        files[f"{POLICIES}/{policy.name}/{ABOUT}"] = _yaml(about)
        files |= {f"{POLICIES}/{policy.name}/{name}": text for name, text in _more_of(policy).items()}
    for endpoint_set in bundle.sets:
        files[f"{SETS}/{endpoint_set.name}/{SET_TEXT}"] = endpoint_set.text
        files[f"{SETS}/{endpoint_set.name}/{ABOUT}"] = _yaml({"description": endpoint_set.description})
    if bundle.never_allow is not None:
        hosts = [{"host": entry.host, "reason": entry.reason} for entry in bundle.never_allow]
        files[NEVER_ALLOW] = _yaml({"hosts": hosts})
    return files


def _more_of(policy: BundledPolicy) -> dict[str, str]:
    files = {}
    if policy.exceptions is not None:
        entries = [
            {"endpoint": entry.endpoint, "owner": entry.owner, "reason": entry.reason, "until": entry.until.isoformat()}
            for entry in policy.exceptions
            if not entry.is_idle
        ]
        files[EXCEPTIONS] = _yaml({"exceptions": entries})
    if policy.staged is not None:
        files[STAGED_TEXT] = policy.staged.text
        if policy.staged.canaries:
            files[CANARIES] = _yaml({"scopes": [scope.key for scope in policy.staged.canaries]})
    return files


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), allow_unicode=True, sort_keys=False, width=1000)


def is_of_bundle(path: str) -> bool:
    """True for a path, with slashes, that a bundle may have; other files of the folder are left alone."""
    parts = PurePosixPath(path).parts
    if len(parts) == 1:
        return parts[0] in (MANIFEST, NEVER_ALLOW)
    names = {POLICIES: (POLICY_TEXT, ABOUT, EXCEPTIONS, STAGED_TEXT, CANARIES), SETS: (SET_TEXT, ABOUT)}
    return len(parts) == 3 and parts[2] in names.get(parts[0], ())


# A policy may be attached to very many scopes.
LIMITS = Limits(bytes=8 * 1024 * 1024, lines=1_000_000, values=1_000_000)
EXCEPTION_KEYS = ("endpoint", "owner", "reason", "until")


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
        organization = self._manifest()
        policies = [self._policy(name, folder) for name, folder in self._folders(POLICIES, POLICY_TEXT)]
        sets = [self._set(name, folder) for name, folder in self._folders(SETS, SET_TEXT)]
        self._refuse_scopes_of_two(policies)
        return Bundle(
            organization=organization,
            policies=tuple(sorted(policies, key=lambda policy: policy.name.lower())),
            sets=tuple(sorted(sets, key=lambda endpoint_set: endpoint_set.name.lower())),
            never_allow=self._never_allow(),
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

    def _manifest(self) -> str:
        """The organization that the manifest names; empty with an error."""
        path = MANIFEST
        if path not in self.files:
            self._error(path, None, "missing-file", "The file is missing.", "Point to a folder that export wrote.")
            return ""
        values = self._mapping(path, ("format", "organization"))
        written = self._text(path, values.get("format"), "format")
        if written != FORMAT and not self.problems:
            message = f"The format is {written[:20]!r}; this release reads {FORMAT}."
            self._error(path, values.get("format"), "unknown-format", message)
        organization = self._text(path, values.get("organization"), "organization")
        try:
            return Scope.for_organization(organization).owner
        except ValueError as refusal:
            self._error(path, values.get("organization"), "no-organization", str(refusal))
            return ""

    def _policy(self, name: str, folder: str) -> BundledPolicy:
        path = f"{folder}/{ABOUT}"
        values = self._mapping(path, ("description", "attached-to")) if path in self.files else {}
        return BundledPolicy(
            name=name,
            text=self.files[f"{folder}/{POLICY_TEXT}"],
            description=self._optional(path, values, "description"),
            scopes=self._scopes(path, values, "attached-to"),
            exceptions=self._exceptions(f"{folder}/{EXCEPTIONS}"),
            staged=self._staged(folder),
        )

    def _staged(self, folder: str) -> BundledStaged | None:
        path = f"{folder}/{CANARIES}"
        text = self.files.get(f"{folder}/{STAGED_TEXT}")
        values = self._mapping(path, ("scopes",)) if path in self.files else {}
        canaries = self._scopes(path, values, "scopes")
        if canaries and not (text or "").strip():
            hint = f"Put its text into {STAGED_TEXT}, or remove the scopes."
            self._error(path, None, "no-staged", "There is no staged version that these scopes could get.", hint)
        return None if text is None else BundledStaged(text, canaries)

    def _exceptions(self, path: str) -> tuple[BundledException, ...] | None:
        exceptions: dict[str, BundledException] = {}
        for entry, values in self._entries(path, "exceptions", EXCEPTION_KEYS):
            exception = self._exception(path, entry, values)
            if exception is None:
                continue
            if exception.endpoint in exceptions:
                message = f"{exception.endpoint} is listed twice."
                self._error(path, entry, "endpoint-twice", message, "Keep one of them.")
            else:
                exceptions[exception.endpoint] = exception
        return tuple(exceptions[endpoint] for endpoint in sorted(exceptions)) if path in self.files else None

    def _exception(self, path: str, entry: Node, values: Mapping[str, Node]) -> BundledException | None:
        texts = {key: " ".join(self._text(path, values.get(key, entry), key).split()) for key in EXCEPTION_KEYS}
        endpoint = self._endpoint(path, values.get("endpoint"), texts["endpoint"])
        until = self._time(path, values.get("until"), texts["until"])
        if endpoint is None or until is None:
            return None
        return BundledException(endpoint, texts["owner"].removeprefix("@"), texts["reason"], until, entry.line)

    def _endpoint(self, path: str, node: Node | None, written: str) -> str | None:
        """The clean `host:port` of an exception, as it is stored."""
        checked = check_set(written)
        if checked.endpoints and len(checked.endpoints) == 1:
            return checked.endpoints[0]
        if written:
            first = next((problem for problem in checked.problems if problem.severity == "error"), None)
            message = first.message if first else "An exception is for one endpoint."
            self._error(path, node, "no-endpoint", message, first.hint if first else "Write one entry for each.")
        return None

    def _time(self, path: str, node: Node | None, written: str) -> datetime | None:
        """A day means the end of it; a time without an offset is in UTC."""
        if not written:
            return None
        try:
            if len(written) == len("2026-01-31"):
                return datetime.combine(date.fromisoformat(written) + timedelta(days=1), time(), UTC)
            return in_utc(datetime.fromisoformat(written))
        except (ValueError, OverflowError):
            hint = "Enter a day such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z."
            self._error(path, node, "not-a-time", f"{quoted(written)} is not a date and time.", hint)
            return None

    def _never_allow(self) -> tuple[BundledHost, ...] | None:
        found: dict[str, BundledHost] = {}
        for entry, values in self._entries(NEVER_ALLOW, "hosts", ("host", "reason")):
            host, reason = (self._text(NEVER_ALLOW, values.get(key, entry), key) for key in ("host", "reason"))
            host = host.strip().rstrip(".").lower()
            if host in found:
                self._error(NEVER_ALLOW, entry, "host-twice", f"{host[:60]} is listed twice.", "Keep one of them.")
            found[host] = BundledHost(host, " ".join(reason.split()), entry.line)
        return tuple(found[host] for host in sorted(found)) if NEVER_ALLOW in self.files else None

    def _entries(self, path: str, key: str, known: tuple[str, ...]) -> Iterator[tuple[Node, dict[str, Node]]]:
        """The entries of a file that is one list, each a set of keys."""
        if path not in self.files:
            return
        values = self._mapping(path, (key,))
        for node in self._items(path, values.get(key), key):
            if isinstance(node, YamlMapping):
                yield node, self._known(path, node, known)
            else:
                hint = f"Write {', '.join(known)}, each on a line of its own below a hyphen."
                self._error(path, node, "wrong-type", f"An entry of {key} is a set of keys.", hint)

    def _scopes(self, path: str, values: Mapping[str, Node], key: str) -> tuple[Scope, ...]:
        scopes = [self._scope(path, node, key) for node in self._items(path, values.get(key), key)]
        return tuple(sorted({scope for scope in scopes if scope}))

    def _set(self, name: str, folder: str) -> BundledSet:
        path = f"{folder}/{ABOUT}"
        values = self._mapping(path, ("description",)) if path in self.files else {}
        return BundledSet(name, self.files[f"{folder}/{SET_TEXT}"], self._optional(path, values, "description"))

    def _scope(self, path: str, node: Node, key: str) -> Scope | None:
        written = self._text(path, node, key)
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
        root, problems = read(self.files[path], limits=LIMITS)
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
                hint = closest_hint(key.value, known) or f"Valid keys: {', '.join(known)}."
                self._error(path, key, "unknown-key", f"Unknown key {quoted(key.value)}.", hint)
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
        self.problems.append((path, error(node or START, code, message, hint)))
