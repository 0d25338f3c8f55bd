"""Changes single keys of a policy's text and leaves everything else as a person wrote it: comments, order, blank lines.

Every function takes a text in which `document.check` finds no error, and returns such a text. Entries of a list that
stay keep their line and their comments. `addition` chooses the endpoints to add so that every added call is allowed,
and no call is blocked that was allowed before.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as Values
from dataclasses import dataclass

from policystore.policy_language.document import written_endpoints
from policystore.policy_language.endpoint_matcher import (
    BUILT_IN_HOSTS,
    BUILT_IN_WILDCARDS,
    VENDOR_HOSTS,
    AllowList,
    Verdict,
    Wildcards,
    full_name,
)
from policystore.policy_language.endpoint_sets import names_in
from policystore.policy_language.values import SWITCHES
from policystore.policy_language.yaml_reader import Mapping, Node, Scalar, read
from policystore.policy_language.yaml_reader import Sequence as ListNode

ENDPOINTS = "allowed-endpoints"
SETS = "endpoint-sets"
LOCKDOWN = "lockdown-mode"
ORDER = ("egress-policy", *SWITCHES, ENDPOINTS, SETS, LOCKDOWN)
INDENT = "  "
_COMMENT = re.compile(r"(?:^|(?<=[\s{]))#.*", re.MULTILINE)
# The keys that hold a list whose lines may have comments, and how the list is read back.
_LISTED: dict[str, Callable[[str], list[str]]] = {ENDPOINTS: written_endpoints, SETS: names_in}


class CannotEdit(ValueError):
    """The text is no policy that could be changed key by key."""


def new_document(values: Values[str, object]) -> str:
    """A fresh document with these keys, in the order that people write them."""
    lines: list[str] = []
    for key in ORDER:
        if values.get(key) not in (None, []):
            lines += _rendered(key, values[key], column=0)
    return "\n".join(lines) + "\n"


def set_values(text: str, values: Values[str, object]) -> str:
    """The text with these keys set; a value of None or an empty list takes the key out.

    Endpoints come out as they are given, in their order; those that stay keep their comments. Raises CannotEdit.
    """
    before = text
    for key in (*ORDER, *(key for key in values if key not in ORDER)):
        if key in values:
            text = _set(text, key, values[key])
    return _with_mode(before, text)


def add_endpoints(text: str, endpoints: Sequence[str]) -> str:
    """The text with those of the endpoints that it does not list yet at the end of its list. Raises CannotEdit."""
    listed = written_endpoints(text)
    known = {_folded(endpoint) for endpoint in listed}
    missing = [endpoint for endpoint in dict.fromkeys(endpoints) if _folded(endpoint) not in known]
    return _with_mode(text, _set(text, ENDPOINTS, [*listed, *missing])) if missing else text


def include_set(text: str, name: str) -> str:
    """The text with one more endpoint set included, unless it is already. Raises CannotEdit."""
    included = names_in(text)
    if name.lower() in (present.lower() for present in included):
        return text
    return _with_mode(text, _set(text, SETS, [*included, name]))


def _with_mode(before: str, after: str) -> str:
    """The text with the mode that it had without saying so, if it lists something now and listed nothing before."""
    lists_now, listed = (bool(written_endpoints(text) or names_in(text)) for text in (after, before))
    has_mode = any(key.value == "egress-policy" for key, _ in _root(after).pairs)
    return _set(after, "egress-policy", "audit") if lists_now and not listed and not has_mode else after


def _folded(endpoint: str) -> str:
    """The key by which two spellings of one endpoint are equal: lower case, with the default port 443."""
    host, colon, port = endpoint.strip().lower().rpartition(":")
    return f"{host}:{port}" if colon else f"{port}:443"


@dataclass(frozen=True, slots=True)
class _Block:
    """The lines of one top-level key: `first` up to, not including, `end` (0-based)."""

    key: Scalar
    value: Node
    first: int
    end: int


def _set(text: str, key: str, value: object) -> str:
    if 0 < text.count("\r\n") < text.count("\n"):
        # Lines that end in both ways have numbers that only one way of ending gives.
        text = text.replace("\r\n", "\n")
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(newline)
    root = _root(text)
    found = next((block for block in _blocks(root, lines) if block.key.value == key), None)
    empty = value in (None, [])
    if empty and found is not None and len(root.pairs) == 1:
        # Without any key the text would be no policy; this one says what a policy means that says nothing.
        key, value, empty = "egress-policy", "audit", False
    if found is None:
        return text if empty else newline.join(_appended(lines, key, value, root.pairs[0][0].column - 1))
    if found.key.value == key and isinstance(found.value, Scalar) and isinstance(value, str | bool):
        return text[: found.value.start] + _scalar(value) + text[found.value.end :]
    column = found.key.column - 1
    if empty:
        replacement = [" " * column + comment for comment in _comments(lines, found)]
    elif kept := _kept_entries(text, lines, found, value):
        replacement = kept
    else:
        head, *rest = _rendered(key, value, column=column)
        replacement = [head, *(" " * column + INDENT + comment for comment in _comments(lines, found)), *rest]
    return newline.join([*lines[: found.first], *replacement, *_below(lines[found.end :])])


def _below(lines: Sequence[str]) -> Iterator[str]:
    """The lines, without what is in blank ones before the first other: below a folded list it would be text of it."""
    blank = True
    for line in lines:
        blank = blank and not line.strip()
        yield "" if blank else line


def _root(text: str) -> Mapping:
    root, problems = read(text)
    if not isinstance(root, Mapping) or not root.pairs or any(problem.severity == "error" for problem in problems):
        raise CannotEdit("The policy's text is not a set of keys.")
    if "{" in _COMMENT.sub("", text[: root.pairs[0][0].start]):
        raise CannotEdit("The policy's text is written in braces; write each key in a line of its own.")
    return root


def _blocks(root: Mapping, lines: Sequence[str]) -> Iterator[_Block]:
    starts = [key.line - 1 for key, _ in root.pairs]
    for (key, value), start, following in zip(root.pairs, starts, [*starts[1:], len(lines)], strict=True):
        end = following
        while end > start + 1 and _is_outside(lines[end - 1], key.column - 1):
            end -= 1
        yield _Block(key, value, start, end)


def _is_outside(line: str, column: int) -> bool:
    """Blank lines, comments indented no further than the key, and the document's end belong to what follows."""
    stripped = line.strip()
    if stripped in ("", "...", "---"):
        return True
    return stripped.startswith("#") and len(line) - len(line.lstrip()) <= column


def _comments(lines: Sequence[str], block: _Block) -> list[str]:
    """The comment lines inside a block, which outlive its content."""
    return [line.strip() for line in lines[block.first + 1 : block.end] if line.strip().startswith("#")]


def _appended(lines: Sequence[str], key: str, value: object, column: int) -> list[str]:
    body = list(lines)
    tail: list[str] = []
    while body and body[-1].strip() in ("", "..."):
        tail.append(body.pop().strip())
    return [*body, *_rendered(key, value, column=column), *(tail[::-1] or [""])]


def _kept_entries(text: str, lines: Sequence[str], block: _Block, entries: object) -> list[str]:
    """The lines of a block with exactly these entries, as far as possible as they are; empty if it is no such list."""
    key = block.key.value
    if key not in _LISTED or not isinstance(entries, list) or not _is_block_list(text, block):
        return []
    inner, bullet = lines[block.first + 1 : block.end], isinstance(block.value, ListNode)
    candidate = [lines[block.first], *in_order(inner, entries, bullet=bullet, column=block.key.column - 1)]
    return candidate if _LISTED[key]("\n".join(candidate) + "\n") == entries else []


def _is_block_list(text: str, block: _Block) -> bool:
    """True if each entry has its own lines below the key."""
    if isinstance(block.value, Scalar):
        return block.value.style in ("|", ">")
    if not isinstance(block.value, ListNode) or not block.value.items:
        return False
    first = block.value.items[0]
    return first.line > block.key.line and "[" not in text[block.key.end : text.find("\n", block.key.end)]


def _rendered(key: str, value: object, *, column: int) -> list[str]:
    indent = " " * column
    if isinstance(value, str | bool):
        return [f"{indent}{key}: {_scalar(value)}"]
    if isinstance(value, list):
        return [f"{indent}{key}: >", *(f"{indent}{INDENT}{entry}" for entry in value)]
    if isinstance(value, dict):
        detections = value.get("detections") or []
        listed = [f"{indent}{INDENT}detections:"] if detections else []
        listed += [f"{indent}{INDENT}{INDENT}- {detection}" for detection in detections]
        return [f"{indent}{key}:", f"{indent}{INDENT}enabled: {_scalar(bool(value['enabled']))}", *listed]
    raise TypeError(f"{key} takes no {type(value).__name__}")


def _scalar(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


_BULLET = re.compile(r"(\s*-\s+)(.*)")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the list: its entries, and the comment lines right above it."""

    text: str
    entries: tuple[str, ...]
    comment: str
    above: tuple[str, ...]


def in_order(lines: Sequence[str], endpoints: Sequence[str], *, bullet: bool, column: int) -> list[str]:
    """The lines of the list with exactly `endpoints`, in their order.

    `bullet` says whether each entry follows a hyphen, and `column` (0-based) is where the list's key starts. A comment
    behind an entry goes with it; comment lines stay, above the entry that they stood above or at the end.
    """
    found, rest = _read(lines, bullet=bullet)
    indent = _indent(found, column)
    waiting: defaultdict[str, deque[int]] = defaultdict(deque)
    for place, line in enumerate(found):
        for entry in line.entries:
            waiting[entry].append(place)
    written: list[str] = []
    used: set[int] = set()
    index = 0
    while index < len(endpoints):
        number = waiting[endpoints[index]].popleft() if waiting[endpoints[index]] else None
        if number is None:
            written.append(indent + _entry(endpoints[index], bullet=bullet))
            index += 1
            continue
        line = found[number]
        if number not in used:
            written += line.above
            used.add(number)
        count = len(line.entries)
        whole = tuple(endpoints[index : index + count]) == line.entries and count > 0
        if whole:
            for entry in line.entries[1:]:
                waiting[entry].popleft()
            written.append(line.text)
            index += count
        else:
            comment = f" {line.comment}" if line.comment and count == 1 else ""
            written.append(indent + _entry(endpoints[index], bullet=bullet) + comment)
            index += 1
    orphaned = [above for place, line in enumerate(found) if place not in used for above in line.above]
    return [*written, *orphaned, *rest]


def _read(lines: Sequence[str], *, bullet: bool) -> tuple[list[_Line], list[str]]:
    found: list[_Line] = []
    above: list[str] = []
    for text in lines:
        entries, comment = _entries(text, bullet=bullet)
        if entries:
            found.append(_Line(text, entries, comment, tuple(above)))
            above = []
        else:
            above.append(text)
    return found, above


def _entries(text: str, *, bullet: bool) -> tuple[tuple[str, ...], str]:
    content = text.strip()
    if bullet:
        match = _BULLET.fullmatch(text)
        content = match.group(2).strip() if match else ""
    words, *comment = re.split(r"(?:^|(?<=\s))(?=#)", content, maxsplit=1)
    return tuple(_plain(words.split(), bullet=bullet)), "".join(comment)


def _plain(words: Sequence[str], *, bullet: bool) -> Iterator[str]:
    for word in words:
        quoted = bullet and len(word) > 1 and word[0] == word[-1] and word[0] in "'\""
        yield word[1:-1] if quoted else word


def _indent(found: Sequence[_Line], column: int) -> str:
    first = next((line.text for line in found), " " * (column + 2) + "x")
    return first[: len(first) - len(first.lstrip())]


def _entry(endpoint: str, *, bullet: bool) -> str:
    return f'- "{endpoint}"' if bullet and endpoint.startswith("*") else f"- {endpoint}" if bullet else endpoint


@dataclass(frozen=True, slots=True)
class Addition:
    """The endpoints to add; `also` are those of them that the caller did not request.

    The agent tries no wildcard for a host that is listed by name. So `also` lists by name what a wildcard allowed for a
    host that is now listed.
    """

    endpoints: tuple[str, ...]
    also: tuple[str, ...] = ()


def addition(requested: Iterable[str], listed: Iterable[str] = ()) -> Addition:
    """Choose what to add to `listed` so that the calls to `requested` are allowed; all are clean endpoints.

    An endpoint that a wildcard covers is left out, unless its host has to be listed by name.
    """
    requested, listed = list(dict.fromkeys(requested)), list(dict.fromkeys(listed))
    chosen = _without_covered(requested, listed)
    also = tuple(dict.fromkeys(_lost(chosen, listed)))
    return Addition((*chosen, *also), also)


def _without_covered(requested: Sequence[str], listed: Sequence[str]) -> list[str]:
    covering = AllowList.listed(endpoint for endpoint in (*listed, *requested) if "*" in endpoint)
    is_covered = {
        endpoint: "*" not in endpoint and covering.verdict_of(endpoint) is Verdict.ALLOWED for endpoint in requested
    }
    by_name = {_host(endpoint) for endpoint in (*listed, *BUILT_IN_HOSTS, *VENDOR_HOSTS)}
    by_name |= {_host(endpoint) for endpoint in requested if not is_covered[endpoint]}
    known = set(listed)
    return [
        endpoint
        for endpoint in requested
        if endpoint not in known and (not is_covered[endpoint] or _host(endpoint) in by_name)
    ]


def _lost(chosen: Sequence[str], listed: Sequence[str]) -> Iterator[str]:
    """The endpoints that a wildcard allowed, or was chosen to allow, for hosts that are now listed by name."""
    before, new = Wildcards(), Wildcards()
    ports: defaultdict[str, set[int]] = defaultdict(set)
    for endpoint, wildcards in [
        *((endpoint, before) for endpoint in (*listed, *BUILT_IN_WILDCARDS)),
        *((endpoint, new) for endpoint in chosen),
    ]:
        host, _, port = endpoint.rpartition(":")
        if "*" in host:
            wildcards.add(host, int(port))
        else:
            ports[host].add(int(port))
    listed_hosts = {_host(endpoint) for endpoint in listed}
    for host, known in ports.items():
        matching = set(new.matching(full_name(host)))
        if host not in listed_hosts:
            matching.update(before.matching(full_name(host)))
        yield from (f"{host}:{port}" for port in sorted(matching - known))


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0]
