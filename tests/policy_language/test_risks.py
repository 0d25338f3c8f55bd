"""Endpoints where data could be carried out: which are, how they are told, and which are not."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language import risks
from policystore.policy_language.document import check
from policystore.policy_language.endpoint_matcher import Pattern
from policystore.policy_language.endpoint_parser import Entry, clean
from policystore.policy_language.endpoint_sets import KnownSets, check_set

DATA = tomllib.loads(Path(risks.__file__).with_name("risks.toml").read_text(encoding="utf-8"))
LISTED = sorted({domain for kind in DATA["kind"] for domain in kind.get("domains", ())})


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("pastebin.com", "paste"),
        ("api.pastebin.com", "paste"),
        ("notpastebin.com", None),
        ("gist.github.com", "gist"),
        ("github.com", None),
        ("api.github.com", None),
        ("transfer.sh", "file-drop"),
        ("content.dropboxapi.com", "file-share"),
        ("webhook.site", "request-catcher"),
        ("x.oast.fun", "request-catcher"),
        ("abc.ngrok.io", "tunnel"),
        ("*.ngrok.io", "tunnel"),
        ("10-0-0-1.nip.io", "any-address"),
        ("bit.ly", "shortener"),
        ("api.telegram.org", "messaging"),
        ("hooks.slack.com", "messaging"),
        ("*.slack.com", "messaging"),
        ("*.github.com", "gist"),
        ("foo*.github.com", None),
        ("s3.amazonaws.com", "any-bucket"),
        ("s3.eu-west-1.amazonaws.com", "any-bucket"),
        ("s3-eu-west-1.amazonaws.com", "any-bucket"),
        ("storage.googleapis.com", "any-bucket"),
        ("my-bucket.s3.amazonaws.com", None),
        ("my-bucket.s3.eu-west-1.amazonaws.com", None),
        ("*.s3.amazonaws.com", "many-owners"),
        ("*.s3.eu-west-1.amazonaws.com", "many-owners"),
        ("*.amazonaws.com", "many-owners"),
        ("*.execute-api.eu-west-1.amazonaws.com", "many-owners"),
        ("*.blob.core.windows.net", "many-owners"),
        ("mine*.blob.core.windows.net", "many-owners"),
        ("*.mine.blob.core.windows.net", None),
        ("*.windows.net", "many-owners"),
        ("*.github.io", "many-owners"),
        ("octo.github.io", None),
        ("*.cloudfront.net", "many-owners"),
        ("*.com", "many-owners"),
        ("*.co.uk", "many-owners"),
        ("*", "many-owners"),
        ("ev*.com", "many-owners"),
        ("*.octo1.org", None),
        ("*.actions.githubusercontent.com", None),
    ],
)
def test_an_endpoint_is_risky_by_what_is_known_of_its_host(host, kind):
    risk = risks.risk_of(f"{host}:443")
    assert (risk.kind if risk else None) == kind


@pytest.mark.parametrize("domain", LISTED)
def test_each_listed_domain_and_all_below_it_is_an_endpoint_and_risky(domain):
    assert clean(Entry(domain, 1, 1))[0] == f"{domain}:443"
    assert risks.risk_of(f"{domain}:443") == risks.risk_of(f"a.{domain}:8443") is not None


@pytest.mark.parametrize("kind", DATA["kind"], ids=lambda kind: kind["name"])
def test_each_kind_says_what_and_what_instead(kind):
    assert kind["severity"] in ("note", "warning")
    assert kind["what"].endswith(".")
    assert kind["instead"].endswith(".")
    for place in (*kind.get("domains", ()), *kind.get("hosts", ()), *kind.get("shared", ())):
        assert place == place.lower().strip(".")


@given(st.sampled_from(LISTED), st.data())
def test_a_wildcard_that_covers_a_listed_domain_is_risky(domain, data):
    start = data.draw(st.integers(0, len(domain) - 1))
    end = data.draw(st.integers(start, len(domain)))
    pattern = f"{domain[:start]}*{domain[end:]}"
    assert Pattern.of(pattern).matches(f"{domain}.")
    assert risks.risk_of(f"{pattern}:443") is not None


@given(st.text(alphabet="abc*.-1", max_size=20))
def test_no_host_breaks_it(host):
    risks.risk_of(f"{host}:443")


def test_a_risk_is_told_beside_its_line_and_stops_no_save():
    checked = check("egress-policy: block\nallowed-endpoints: >\n  github.com\n  pastebin.com\n  bit.ly\n")
    assert checked.document is not None
    first, second = checked.problems
    assert (first.severity, first.line, first.column, first.code) == ("warning", 4, 3, "risk-paste")
    assert first.message == "“pastebin.com” is a paste site: anyone can read what a job sends there."
    assert first.hint == "Keep logs and results as artifacts of the run."
    assert (second.severity, second.line, second.code) == ("note", 5, "risk-shortener")


def test_a_wildcard_for_everything_is_told_once_and_counted():
    checked = check("egress-policy: block\nallowed-endpoints: '*'\n")
    assert [problem.code for problem in checked.problems] == ["bare-wildcard"]
    assert risks.count(checked.document.allowed_endpoints) == 1


def test_risks_of_a_set_are_told_in_it_and_where_it_is_included():
    assert [problem.code for problem in check_set("a.com\npastebin.com\n").problems] == ["risk-paste"]
    sets = KnownSets({"old": ("pastebin.com:443", "a.com:443", "bit.ly:443")})
    (problem,) = check("egress-policy: block\nendpoint-sets: old\n", sets=sets).problems
    assert (problem.severity, problem.code) == ("note", "risk-in-set")
    assert "“pastebin.com:443” and 1 more" in problem.message
