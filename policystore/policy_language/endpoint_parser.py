"""Parses `allowed-endpoints`, in whatever form the list is written, into the clean `host:port` that runners get.

Each entry keeps its position in the text.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from policystore.policy_language.endpoint_matcher import AgentEndpoint, Pattern, full_name, why_it_gives_up
from policystore.policy_language.never_allow import NeverAllow
from policystore.policy_language.problems import Problem, error, quoted, warning
from policystore.policy_language.values import is_expression, unevaluated
from policystore.policy_language.yaml_reader import Mapping, Node, Scalar, Sequence, position, surprises

USUAL_PORTS = (443, 80)
MAX_PORT = 65535
MAX_HOST = 253
_LABEL = re.compile(r"[A-Za-z0-9_*](?:[A-Za-z0-9_*-]{0,61}[A-Za-z0-9_*])?")

# Entries with nothing wrong in them, so that long lists are checked fast.
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
    written, _, port = entry.text.partition(":")
    host, number = written.removesuffix("."), int(port) if port else 443
    return f"{host.lower()}:{number}", list(_doubts(entry, host, number))


def cleaned(text: str) -> str | None:
    """The entry as `host:port`; None where it is an error."""
    return clean(Entry(text, 1, 1))[0]


def unlistable(endpoint: str) -> str:
    """Why no policy should list an endpoint that was observed, in a sentence; empty where one can."""
    entry = Entry(endpoint, 1, 1)
    found, problems = clean(entry)
    if found is None:
        return problems[0].message
    return next((problem.message for problem in ended_enforcement(entry, found, mode="")), "")


def ended_enforcement(entry: Entry, endpoint: str, *, mode: str) -> Iterator[Problem]:
    """The problem that the clean `endpoint` of an entry makes the agent stop enforcing for the whole job.

    That is an error in block mode, and where the mode is not known, but a warning in audit mode.
    """
    host, _, port = endpoint.rpartition(":")
    why = why_it_gives_up(AgentEndpoint(full_name(host), int(port), wildcard="*" in host))
    if not why:
        return
    message = f"In block mode, {quoted(entry.text)} makes the agent stop enforcing for the whole job, because {why}."
    hint = "Comments start with #." if "." not in host else "Remove it, or list a name that public DNS resolves."
    problem = warning if mode == "audit" else error
    yield problem(entry, "ends-enforcement", message, hint)


def refused_entry(entry: Entry, endpoint: str, never_allow: NeverAllow) -> Iterator[Problem]:
    """An error if the clean `endpoint` of an entry is never allowed, or is a wildcard that also matches such a host."""
    refused = never_allow.refusing(endpoint)
    if refused is None:
        return
    what = f"matches {quoted(refused.host)}, which is" if "*" in endpoint else "is"
    message = f"{quoted(entry.text)} {what} never allowed in this organization: {refused.reason.rstrip('.')}."
    hint = "List the hosts that you need instead." if "*" in endpoint else "Remove it."
    yield error(entry, "never-allowed", message, hint)


def _refuse(entry: Entry, code: str, message: str, hint: str) -> Problem:
    return error(entry, code, f"{quoted(entry.text)} {message}", hint)


def shown(text: str) -> str:
    """The entry as a message shows it: at most 80 characters."""
    return text if len(text) <= 80 else f"{text[:77]}…"


def _expression(entry: Entry) -> Problem | None:
    if not is_expression(entry.text):
        return None
    return unevaluated(entry.text, entry, "Enter host:port, for example github.com:443.")


def _scheme(entry: Entry) -> Problem | None:
    scheme, found, rest = entry.text.partition("://")
    if not found:
        return None
    host = re.split(r"[/?#]", rest)[0].rpartition("@")[2] or "host"
    port = ":80" if scheme.lower() == "http" else ":443"
    right = host if ":" in host else f"{host}{port}"
    return _refuse(entry, "endpoint-scheme", "has a scheme. Enter a host and a port only.", _instead(right))


def _instead(endpoint: str) -> str:
    """A hint to enter the endpoint, if that is one."""
    return f"Enter {quoted(endpoint)}." if cleaned(endpoint) else "Enter host:port, for example github.com:443."


def _comma(entry: Entry) -> Problem | None:
    if "," not in entry.text and ";" not in entry.text:
        return None
    return _refuse(
        entry, "endpoint-comma", "contains a comma or semicolon.", "Separate endpoints with spaces or lines."
    )


def _address(entry: Entry) -> Problem | None:
    host = entry.text if entry.text.count(":") > 1 else entry.text.partition(":")[0]
    for candidate in (host, host.strip("[]"), re.sub(r"^\[(.*)\](:.*)?$", r"\1", entry.text)):
        if _is_network(candidate):
            what = "is a network" if "/" in candidate else "is an IPv6 address"
            message = f"{what}. The agent would read it as the name of a host that does not exist."
            return _refuse(entry, "endpoint-address", message, "Enter the host's domain name.")
    return None


def _is_network(text: str) -> bool:
    if len(text) > MAX_HOST or ("/" not in text and text.count(":") < 2) or not _ADDRESS_LIKE.fullmatch(text):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    # A bare number counts as a network to the library; here it is a host name of one label.
    return not text.partition("/")[0].isdecimal()


def _characters(entry: Entry) -> Problem | None:
    text = entry.text
    if "@" in text:
        return _refuse(entry, "endpoint-userinfo", "contains a user name.", _instead(text.rpartition("@")[2]))
    if any(bracket in text for bracket in "[]{}()<>\"'"):
        hint = "Enter host:port, for example github.com:443."
        return _refuse(entry, "endpoint-bracket", "contains brackets or quotes.", hint)
    if "/" in text:
        return _refuse(entry, "endpoint-path", "has a path. Enter a host and a port only.", "Remove the path.")
    strange = next((character for character in text if not character.isascii()), "")
    if strange:
        name = unicodedata.name(strange, "unnamed")
        message = f"contains “{strange}” (U+{ord(strange):04X}, {name}), which host names cannot contain."
        hint = "Use ASCII letters, digits, hyphens, underscores and dots. International names start with xn-- in ASCII."
        return _refuse(entry, "endpoint-not-ascii", message, hint)
    return None


def _port(entry: Entry) -> Problem | None:
    host, colon, port = entry.text.partition(":")
    if not colon:
        return None
    if ":" in port:
        return _refuse(entry, "endpoint-colons", f"has more than one colon. Enter host:port{_example(host)}", "")
    what = f"The port in {quoted(entry.text)}"
    if not re.fullmatch(r"[+-]?[0-9]+", port):
        message = f"{what} must be a number{_example(host)}"
        return error(entry, "endpoint-port", message)
    if not port.isdecimal() or len(port) > 5 or not 1 <= int(port) <= MAX_PORT:
        message = f"{what} must be between 1 and {MAX_PORT}{_example(host)}"
        return error(entry, "endpoint-port", message)
    return None


def _example(host: str) -> str:
    """The end of a sentence, with an endpoint as an example; it has the host if that is one."""
    right = f"{host}:443"
    return f", for example {right if cleaned(right) else 'github.com:443'}."


def _host(entry: Entry) -> Problem | None:
    host = entry.text.partition(":")[0].removesuffix(".")
    if host == "":
        return _refuse(entry, "endpoint-host", "has no host.", "Enter host:port, for example github.com:443.")
    if len(host) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        hint = "Use labels of up to 63 letters, digits, hyphens and underscores, separated by dots."
        return _refuse(entry, "endpoint-host", "is not a valid host name.", hint)
    return None


def _second_star(entry: Entry) -> Problem | None:
    host = entry.text.partition(":")[0].removesuffix(".")
    if host.count("*") < 2:
        return None
    pattern = Pattern.of(host)
    ending = pattern.suffix.removesuffix(".")
    if pattern.suffix and not pattern.suffix.endswith("."):
        allowed = "no host"
    else:
        parts = [f"starts with “{pattern.prefix}”"] * bool(pattern.prefix) + [f"ends with “{ending}”"] * bool(ending)
        allowed = f"every host that {' and '.join(parts)}" if parts else "every host"
    message = f"has more than one *. The agent ignores what follows the second one, so it would allow {allowed}."
    last = host.rpartition("*")[2]
    example = f"*{last}" if last.startswith(".") and last.count(".") > 1 else "*.example.com"
    return _refuse(entry, "second-wildcard", message, f"Use one *, for example {shown(example)}:443.")


_REFUSALS: tuple[Callable[[Entry], Problem | None], ...] = (
    _expression,
    _scheme,
    _comma,
    _address,
    _characters,
    _port,
    _host,
    _second_star,
)


def _doubts(entry: Entry, host: str, port: int) -> Iterator[Problem]:
    def doubt(code: str, message: str, hint: str = "") -> Problem:
        return warning(entry, code, f"{quoted(entry.text)} {message}", hint)

    if host == "*":
        yield doubt("bare-wildcard", "matches every host.", "List the hosts, or use a wildcard such as *.example.com.")
    elif re.search(r"\*[^.]", host):
        other = host.replace("*", "evil", 1)
        yield doubt("open-wildcard", f"also matches hosts such as {quoted(other)}.", "Put a dot after the *.")
    elif host.endswith("*"):
        other = host.replace("*", "evil.com" if host[:-1].endswith(".") else ".evil.com", 1)
        yield doubt("open-wildcard", f"also matches hosts such as {quoted(other)}.", "Put the * first.")
    elif "*" in host and host.lower().endswith(".internal"):
        yield doubt("never-matches", "never matches: the agent does not resolve names below .internal.", "Remove it.")
    if host != host.lower():
        yield doubt("upper-case", "has upper-case letters. The agent compares case, so it is served in lower case.")
    if port not in USUAL_PORTS:
        yield doubt("unusual-port", f"uses port {port}. Most hosts need 443 or 80 only.")


BLOCK_STYLES = ("|", ">")
MAX_ENTRIES = 2000
# A GitHub expression is one word, whatever spaces it has. Its length is limited so that no line takes long.
_WORD = re.compile(r"(?:\$\{\{.{0,500}?\}\}|\S)+")


def read_entries(text: str, value: Node) -> tuple[list[Entry], list[Problem]]:
    """The entries of a folded or literal text, of a plain or quoted value, or of a list; comments are left out.

    Past MAX_ENTRIES none is read, and a problem says so.
    """
    return limited(*_read(text, value))


def limited(entries: list[Entry], problems: list[Problem]) -> tuple[list[Entry], list[Problem]]:
    """The entries and problems as they are, or the first MAX_ENTRIES and the problem that there are more."""
    if len(entries) <= MAX_ENTRIES:
        return entries, problems
    surplus = entries[MAX_ENTRIES]
    message = f"The list is too long: {len(entries):,} entries (maximum {MAX_ENTRIES:,})."
    return entries[:MAX_ENTRIES], [error(surplus, "too-many-endpoints", message, "Use wildcards.")]


def _read(text: str, value: Node) -> tuple[list[Entry], list[Problem]]:
    if isinstance(value, Sequence):
        return _of_list(value)
    if isinstance(value, Mapping):
        hint = "Enter allowed-endpoints: > and below it one indented endpoint per line."
        return [], [error(value, "wrong-type", "allowed-endpoints must be a list of endpoints, not keys.", hint)]
    return scalar_entries(text, value)


def scalar_entries(text: str, value: Scalar) -> tuple[list[Entry], list[Problem]]:
    """The words of a folded, literal, plain or quoted text, each with its place; comments are left out."""
    if value.style in BLOCK_STYLES:
        return list(_of_block(text, value)), []
    return _of_line(text, value)


def _of_block(text: str, node: Scalar) -> Iterator[Entry]:
    """A `#` that starts a word makes the rest of its line a comment, though YAML itself would keep it as text."""
    line_end = text.find("\n", node.start)
    if line_end < 0:
        return
    line_number, _ = position(text, line_end + 1)
    yield from entries_in_lines(text[line_end + 1 : node.end], first_line=line_number)


def entries_in_lines(text: str, *, first_line: int = 1) -> Iterator[Entry]:
    """The words of lines; a `#` that starts a word makes the rest of its line a comment."""
    for offset, line in enumerate(text.split("\n")):
        for word in _WORD.finditer(line):
            if word.group().startswith("#"):
                break
            yield Entry(word.group(), first_line + offset, word.start() + 1)


def _of_line(text: str, node: Scalar) -> tuple[list[Entry], list[Problem]]:
    if problems := surprises(node, "Put the endpoints below a > instead."):
        return [], problems
    if node.style is None:
        indent = " " * (node.column - 1)
        return list(entries_in_lines(indent + text[node.start : node.end], first_line=node.line)), []
    return _quoted(node)


def _quoted(node: Scalar) -> tuple[list[Entry], list[Problem]]:
    words = _WORD.findall(node.value)
    for word in words:
        if word.startswith("#"):
            message = f"{quoted(word)} is not a comment, because it is inside quotes."
            return [], [error(node, "comment-in-quotes", message, "Move the comment behind the closing quote.")]
    return [Entry(word, node.line, node.column) for word in words], []


def _of_list(value: Sequence) -> tuple[list[Entry], list[Problem]]:
    entries: list[Entry] = []
    problems: list[Problem] = []
    for item in value.items:
        problem = _item_problem(item)
        if problem is not None:
            problems.append(problem)
        elif isinstance(item, Scalar):
            found, more = _quoted(item)
            entries += found
            problems += more
    return entries, problems


def _item_problem(item: Node) -> Problem | None:
    if isinstance(item, Mapping):
        hint = "Enter host:port without a space after the colon."
        return error(item, "endpoint-space", "A space after the colon makes this a key.", hint)
    if isinstance(item, Sequence):
        return error(item, "wrong-type", "An endpoint must be a single value, not a list.", "Enter host:port.")
    if item.value.strip() == "":
        return error(item, "missing-value", "An entry of the list is empty.", "Remove its hyphen.")
    return next(iter(surprises(item, "Put the value in quotes.")), None)
