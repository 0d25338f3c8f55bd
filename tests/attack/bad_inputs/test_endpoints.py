"""Entries that are no endpoints of the agent: in a policy, a set, an exception, and among never-allow hosts."""

import pytest

from tests.attack.bad_inputs.asking import OWN, STORE, Bad, check, rows, world

pytestmark = pytest.mark.django_db


def entry(name, written, told):
    text = f"egress-policy: block\nallowed-endpoints:\n  - {written}\n"
    return Bad(name, 422, told, f"{STORE}new/", {"name": "draft", "text": text}, kept=("name", "text"))


def in_set(name, written, told):
    form = {"name": "draft", "text": written}
    return Bad(f"set: {name}", 422, told, f"{OWN}endpoint-sets/new/", form, kept=("name", "text"))


def exception(name, written, told, **more):
    form = {"endpoint": written, "expires_at": "2999-01-31", "reason": "a move", **more}
    path = f"{STORE}{{POLICY}}/exceptions/"
    return Bad(f"exception: {name}", 422, told, path, form, kept=("endpoint", "expires_at", "reason"))


def never(name, written, told):
    form = {"host": written, "reason": "exfiltration"}
    return Bad(f"never-allow: {name}", 422, told, f"{OWN}settings/never-allow-hosts/", form, kept=("host", "reason"))


CASES = [
    entry(
        "a web address",
        "https://github.com/x",
        "Line 3, column 5 error “https://github.com/x” has a scheme. Enter a host and a port only. Enter “github.com:443”.",
    ),
    entry(
        "a comma",
        "a.example:443,b.example:443",
        "Line 3, column 5 error “a.example:443,b.example:443” contains a comma or semicolon. Separate endpoints with spaces or lines.",
    ),
    entry(
        "an IPv4 address",
        "10.0.0.1:443",
        "Line 3, column 5 error In block mode, “10.0.0.1:443” makes the agent stop enforcing for the whole job, because it is an IP address. Remove it, or list a name that public DNS resolves.",
    ),
    entry(
        "a network",
        "10.0.0.0/8",
        "Line 3, column 5 error “10.0.0.0/8” is a network. The agent would read it as the name of a host that does not exist. Enter the host's domain name.",
    ),
    entry(
        "an IPv6 address",
        "'[2001:db8::1]:443'",
        "Line 3, column 5 error “[2001:db8::1]:443” is an IPv6 address. The agent would read it as the name of a host that does not exist. Enter the host's domain name.",
    ),
    entry(
        "a user",
        "user@github.com:443",
        "Line 3, column 5 error “user@github.com:443” contains a user name. Enter “github.com:443”.",
    ),
    entry(
        "a path",
        "github.com/x:443",
        "Line 3, column 5 error “github.com/x:443” has a path. Enter a host and a port only. Remove the path.",
    ),
    entry(
        "a word as port",
        "github.com:https",
        "Line 3, column 5 error The port in “github.com:https” must be a number, for example github.com:443.",
    ),
    entry(
        "port 0",
        "github.com:0",
        "Line 3, column 5 error The port in “github.com:0” must be between 1 and 65535, for example github.com:443.",
    ),
    entry(
        "port 65536",
        "github.com:65536",
        "Line 3, column 5 error The port in “github.com:65536” must be between 1 and 65535, for example github.com:443.",
    ),
    entry(
        "two ports",
        "github.com:443:80",
        "Line 3, column 5 error “github.com:443:80” has more than one colon. Enter host:port, for example github.com:443.",
    ),
    entry(
        "no host", "':443'", "Line 3, column 5 error “:443” has no host. Enter host:port, for example github.com:443."
    ),
    entry(
        "two dots at the end",
        "github.com..:443",
        "Line 3, column 5 error “github.com..:443” is not a valid host name. Use labels of up to 63 letters, digits, hyphens and underscores, separated by dots.",
    ),
    entry(
        "two dots",
        "a..example:443",
        "Line 3, column 5 error “a..example:443” is not a valid host name. Use labels of up to 63 letters, digits, hyphens and underscores, separated by dots.",
    ),
    entry(
        "a long label",
        "x" * 64 + ".example:443",
        "Line 3, column 5 error “xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.example:443” is not a valid host name. Use labels of up to 63 letters, digits, hyphens and underscores, separated by dots.",
    ),
    entry(
        "other letters",
        "gіthub.com:443",
        "Line 3, column 5 error “gіthub.com:443” contains “і” (U+0456, CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I), which host names cannot contain. Use ASCII letters, digits, hyphens, underscores and dots. International names start with xn-- in ASCII.",
    ),
    in_set(
        "no endpoint at all",
        "",
        "Line 1, column 1 error The set lists no endpoints. Enter one endpoint per line, for example github.com:443.",
    ),
    in_set(
        "a web address",
        "https://github.com/\n",
        "Line 1, column 1 error “https://github.com/” has a scheme. Enter a host and a port only. Enter “github.com:443”.",
    ),
    exception("an address", "10.0.0.1:443", "Choose a time in the future, at most 366 days from now."),
    exception(
        "a day in the past",
        "x.example:443",
        "Choose a time in the future, at most 366 days from now.",
        expires_at="2001-01-31",
    ),
    exception(
        "no day",
        "x.example:443",
        "Enter a day such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z.",
        expires_at="tomorrow",
    ),
    never(
        "a port",
        "paste.example:443",
        "Enter a host such as evil.example, or *.evil.example for all hosts below it, without a port.",
    ),
    never(
        "everything",
        "*",
        "Enter a host such as evil.example, or *.evil.example for all hosts below it, without a port.",
    ),
]


@rows(CASES)
def test_it_is_told_where_and_how_to_mend_it(bad):
    check(world(), bad)
