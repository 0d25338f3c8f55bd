"""What a policy's text may say, and what is told of one that says something else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policystore.policy_language.document import check, compile_reply
from policystore.policy_language.endpoint_sets import KnownSets
from policystore.policy_language.lint import conflicts
from tests import agent_rule


def problems_of(text, **options):
    return [(problem.line, problem.column, problem.code) for problem in check(text, **options).problems]


def problems_codes(text, **options):
    return [problem.code for problem in check(text, **options).problems]


def errors_of(text):
    return [(problem.line, problem.column, problem.code) for problem in check(text).errors]


def endpoints_of(text):
    document = check(text).document
    assert document is not None, check(text).problems
    return list(document.allowed_endpoints)


@pytest.mark.parametrize(
    "written",
    [
        "allowed-endpoints: >\n  github.com:443\n  api.github.com:443\n",
        "allowed-endpoints: >-\n  github.com:443 api.github.com:443\n",
        "allowed-endpoints: |\n  github.com:443\n  api.github.com:443\n",
        "allowed-endpoints: |+\n  github.com:443\n  api.github.com:443\n\n",
        "allowed-endpoints: >2\n  github.com:443\n  api.github.com:443\n",
        "allowed-endpoints: github.com:443 api.github.com:443\n",
        "allowed-endpoints: github.com:443\n  api.github.com:443\n",
        "allowed-endpoints: 'github.com:443 api.github.com:443'\n",
        'allowed-endpoints: "github.com:443 api.github.com:443"\n',
        "allowed-endpoints:\n  - github.com:443\n  - api.github.com:443\n",
        "allowed-endpoints:\n- github.com\n- 'api.github.com'\n",
        "allowed-endpoints: [github.com:443, api.github.com:443]\n",
        "allowed-endpoints: >\n  # web\n  github.com:443 # the site\n  api.github.com:443 #and its API\n# the end\n",
        "allowed-endpoints: >\n\tgithub.com:443\n".replace("\t", "  ") + "  \tapi.github.com:443\n",
        "allowed-endpoints: >\r\n  github.com:443\r\n  api.github.com:443\r\n",
        "allowed-endpoints: >\n  github.com:443\n  api.github.com:443",
    ],
)
def test_endpoints_are_read_however_they_are_written(written):
    assert endpoints_of(f"egress-policy: block\n{written}") == ["github.com:443", "api.github.com:443"]


def test_the_text_is_kept_as_written():
    text = "# why\negress-policy:   block\r\nallowed-endpoints: >\n  GitHub.com\n"
    assert check(text).document.text == text


def test_endpoints_are_served_clean():
    assert endpoints_of(
        "egress-policy: audit\nallowed-endpoints: >\n  GitHub.COM ghcr.io github.com:443 github.com:0443\n"
        "  github.com. ghcr.io.:8080\n"
    ) == [
        "github.com:443",
        "ghcr.io:443",
        "ghcr.io:8080",
    ]


def test_an_exemption_says_nothing_of_egress_and_blocks_nothing():
    document = check("lockdown-mode:\n  enabled: false\n").document
    assert (document.egress_policy, document.lockdown.enabled) == ("audit", False)


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "'true'", '"true"'])
def test_switches_are_read_as_github_reads_them(word):
    assert check(f"disable-sudo: {word}\n").document.disable_sudo is True


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", (1, 1, "empty-document")),
        ("# only a comment\n", (1, 1, "empty-document")),
        ("{}\n", (1, 1, "empty-document")),
        ("text\n", (1, 1, "no-mapping")),
        ("- uses: x\n", (1, 1, "no-mapping")),
        ("egress-policy: blok\n", (1, 16, "unknown-egress-policy")),
        ("egress-policy: Block\n", (1, 16, "unknown-egress-policy")),
        ("egress-policy:\n", (1, 1, "missing-value")),
        ("egress-policy: ''\n", (1, 16, "missing-value")),
        ("egress-policy: [block]\n", (1, 16, "wrong-type")),
        ("egress-policy: on\n", (1, 16, "surprising-value")),
        ("egress-policy: 2024-01-01\n", (1, 16, "surprising-value")),
        ("egress-policy: ~\n", (1, 16, "surprising-value")),
        ("egress-policy: 0o7\n", (1, 16, "unknown-egress-policy")),
        ("egress-policy: 010\n", (1, 16, "surprising-value")),
        ("disable-sudo: yes\n", (1, 15, "surprising-value")),
        ("disable-sudo: no\n", (1, 15, "surprising-value")),
        ("disable-sudo: 1\n", (1, 15, "surprising-value")),
        ("disable-sudo: 'yes'\n", (1, 15, "no-switch")),
        ("allowed-endpoint: x\n", (1, 1, "unknown-key")),
        ("use-policy-store: true\n", (1, 1, "unknown-key")),
        ("with:\n  egress-policy: block\n", (1, 1, "unknown-key")),
        ("allowed-endpoints:\n  a: b\n", (2, 3, "wrong-type")),
        ("allowed-endpoints: 22:22\n", (1, 20, "surprising-value")),
        ("allowed-endpoints:\n  - 22:22\n", (2, 5, "surprising-value")),
        ("allowed-endpoints:\n  - github.com: 443\n", (2, 5, "endpoint-space")),
        ("allowed-endpoints:\n  -\n", (2, 4, "missing-value")),
        ("allowed-endpoints:\n  - [a]\n", (2, 5, "wrong-type")),
        ("allowed-endpoints: 'a.com # b'\n", (1, 20, "comment-in-quotes")),
        ("lockdown-mode: true\n", (1, 1, "wrong-type")),
        ("lockdown-mode:\n  detections: []\n", (1, 1, "missing-key")),
        ("lockdown-mode:\n  enabled: true\n  detections: Reverse-Shell\n", (3, 15, "wrong-type")),
        ("lockdown-mode:\n  enabled: true\n  detections: [Reverse-Shel]\n", (3, 16, "unknown-detection")),
        ("lockdown-mode:\n  enable: true\n", (2, 3, "unknown-key")),
    ],
)
def test_each_error_is_told_at_its_place(text, problem):
    assert problem in errors_of(text)
    assert check(text).document is None


@pytest.mark.parametrize(
    ("entry", "code", "hint"),
    [
        ("https://github.com/x", "endpoint-scheme", "github.com:443"),
        ("http://github.com", "endpoint-scheme", "github.com:80"),
        ("https://github.com:8443/", "endpoint-scheme", "github.com:8443"),
        ("a.com:443,b.com:443", "endpoint-comma", "spaces"),
        ("10.0.0.0/8:443", "endpoint-address", "domain name"),
        ("10.0.0.0/8", "endpoint-address", "domain name"),
        ("2001:db8::1", "endpoint-address", "domain name"),
        ("'[2001:db8::1]:443'", "endpoint-address", "domain name"),
        ("user@github.com:443", "endpoint-userinfo", "github.com:443"),
        ("github.com/x:443", "endpoint-path", "path"),
        ("github.com:443/x", "endpoint-path", "path"),
        ("github.com:abc", "endpoint-port", "github.com:443"),
        ("github.com:0", "endpoint-port", "github.com:443"),
        ("github.com:65536", "endpoint-port", "github.com:443"),
        ("github.com:99999999999999", "endpoint-port", "github.com:443"),
        ("github.com:443:80", "endpoint-colons", "github.com:443"),
        ("github.com:", "endpoint-port", "github.com:443"),
        (":443", "endpoint-host", "host:port"),
        ("github.com..:443", "endpoint-host", "labels"),
        (".:443", "endpoint-host", "host:port"),
        ("a..com:443", "endpoint-host", "labels"),
        ("-a.com:443", "endpoint-host", "labels"),
        (f"{'a' * 64}.com", "endpoint-host", "63"),
        ("straße.de:443", "endpoint-not-ascii", "“ß” (U+00DF, LATIN SMALL LETTER SHARP S)"),
        ("\u0430.com:443", "endpoint-not-ascii", "“\u0430” (U+0430, CYRILLIC SMALL LETTER A)"),
        ("github.com:-1", "endpoint-port", "between 1 and 65535"),
        ("github.com:70000", "endpoint-port", "between 1 and 65535"),
        ("*.*.github.com:443", "second-wildcard", "it would allow every host. Use one *, for example *.github.com:443"),
        ("**.github.com:443", "second-wildcard", "it would allow every host. Use one *, for example *.github.com:443"),
        ("*.*:443", "second-wildcard", "it would allow every host. Use one *, for example *.example.com:443"),
        ("ec2.*.*.amazonaws.com", "second-wildcard", "every host that starts with “ec2.”"),
        ("a.*.b.*.c:443", "second-wildcard", "every host that starts with “a.” and ends with “.b”"),
        ("a*b*c.com:443", "second-wildcard", "it would allow no host"),
        ("${{ vars.HOST }}:443", "github-expression", "The store does not evaluate expressions. Enter host:port"),
        ("${{ join(vars.HOSTS, ' ') }}", "github-expression", "“${{ join(vars.HOSTS, ' ') }}” is a GitHub expression"),
        ("<b>.com:443", "endpoint-bracket", "host:port"),
        ("a$.com", "endpoint-host", "letters"),
    ],
)
def test_an_entry_that_the_agent_would_misread_is_refused(entry, code, hint):
    for mode in ("audit", "block"):
        checked = check(f"egress-policy: {mode}\nallowed-endpoints: |\n  good.com:443\n  {entry.strip(chr(39))}\n")
        (problem,) = checked.errors
        assert (problem.line, problem.column, problem.code) == (4, 3, code)
        assert hint in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    "entry",
    ["_http._tcp.azure.archive.ubuntu.com:443", "*.docker.io:443", "productionresultssa*.blob.core.windows.net"],
)
def test_entries_seen_in_the_wild_are_accepted(entry):
    checked = check(f"egress-policy: block\nallowed-endpoints: '{entry}'\n")
    assert checked.document is not None
    assert all(problem.is_risk for problem in checked.problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("egress-policy: block\n", (1, 16, "block-without-endpoints")),
        ("egress-policy: block\nallowed-endpoints:\n", (1, 16, "block-without-endpoints")),
        ("egress-policy: audit\nallowed-endpoints: '*:443'\n", (2, 20, "bare-wildcard")),
        ("egress-policy: audit\nallowed-endpoints: '*github.com'\n", (2, 20, "open-wildcard")),
        ("egress-policy: audit\nallowed-endpoints: 'github.*'\n", (2, 20, "open-wildcard")),
        ("egress-policy: audit\nallowed-endpoints: '*.internal'\n", (2, 20, "never-matches")),
        ("egress-policy: audit\nallowed-endpoints: |\n  a.com\n  a.com:443\n", (4, 3, "duplicate-endpoint")),
        ("egress-policy: audit\nallowed-endpoints: |\n  A.com\n", (3, 3, "upper-case")),
        ("egress-policy: audit\nallowed-endpoints: |\n  a.com b.com:8080\n", (3, 9, "unusual-port")),
        ("egress-policy: audit\nallowed-endpoints: |\n  *.a.com:443\n  *.a.com:80\n", (4, 3, "wildcard-second-port")),
        ("egress-policy: audit\nallowed-endpoints: |\n  npm\n", (3, 3, "ends-enforcement")),
        ("lockdown-mode:\n  enabled: true\n", (1, 1, "lockdown-without-detections")),
    ],
)
def test_each_doubt_is_a_warning_that_does_not_stop_the_save(text, problem):
    assert problem in problems_of(text)
    assert check(text).document is not None


@pytest.mark.parametrize("egress", ["audit", "block"])
@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("metadata.google.internal:80", "names below .internal are not in public DNS"),
        ("x.invalid", "names below .invalid are not in public DNS"),
        ("x.test", "names below .test are not in public DNS"),
        ("nas.local", "names below .local are not in public DNS"),
        ("x.onion", "names below .onion are not in public DNS"),
        ("kubernetes.default.svc.cluster.local", "names below .local are not in public DNS"),
        ("10.0.0.1:443", "it is an IP address"),
        ("127.1", "its last label is a number, as in an IP address"),
        ("0x7f.0.0.1:80", "its last label is a number, as in an IP address"),
        ("a.0x1f", "its last label is a number, as in an IP address"),
        ("npm", "it has no dot"),
    ],
)
def test_an_entry_that_ends_enforcement_is_an_error_in_block_and_a_warning_in_audit(entry, why, egress):
    # The mode counts wherever it is set.
    for text in (
        f"egress-policy: {egress}\nallowed-endpoints: '{entry}'\n",
        f"allowed-endpoints: '{entry}'\negress-policy: {egress}\n",
    ):
        checked = check(text)
        (problem,) = checked.problems
        assert (problem.code, problem.severity) == ("ends-enforcement", "error" if egress == "block" else "warning")
        assert problem.message == (
            f"In block mode, “{entry}” makes the agent stop enforcing for the whole job, because {why}."
        )
        assert (checked.document is None) == (egress == "block")


def test_endpoints_without_a_mode_are_an_error_that_names_the_actions_default():
    (problem,) = check("disable-sudo: true\nallowed-endpoints: a.com\n").errors
    assert (problem.line, problem.column, problem.code) == (2, 1, "no-egress-policy")
    assert problem.message.endswith("The Harden-Runner action itself defaults to block.")
    assert problem.hint == "Add egress-policy: audit or egress-policy: block."


def conflicts_of(*entries, more=""):
    checked = check("egress-policy: block\n" + more + "allowed-endpoints: >\n" + "".join(f"  {e}\n" for e in entries))
    assert checked.errors == ()
    first = 3 + bool(more)
    return {
        (problem.line - first, problem.code): f"{problem.message} {problem.hint}"
        for problem in checked.warnings
        if not problem.is_risk
    }


def test_a_wildcard_that_a_listed_host_hides_is_told_on_both_lines():
    told = conflicts_of("mirror.octo.example:80", "a.com", "*.octo.example:443")
    assert told == dict.fromkeys(
        [(0, "hidden-wildcard"), (2, "hidden-wildcard")],
        "“*.octo.example:443” does not apply to “mirror.octo.example”: the agent tries no wildcard for a host that is"
        " listed by name, so port 443 is blocked there. List “mirror.octo.example:443” too.",
    )
    assert conflicts_of("mirror.octo.example:80", "*.octo.example:443", "mirror.octo.example:443") == {}


def test_a_listed_host_hides_the_built_in_wildcards_too():
    told = conflicts_of("x.actions.githubusercontent.com:80")
    assert told[0, "hidden-wildcard"].startswith("The built-in “*.actions.githubusercontent.com:443” does not apply to")
    assert told[0, "hidden-wildcard"].endswith("List “x.actions.githubusercontent.com:443” too.")
    assert conflicts_of("codeload.github.com:22").keys() == {(0, "unusual-port")}


def test_wildcards_with_different_ports_for_the_same_hosts_are_told_on_both_lines():
    told = conflicts_of("*.a.com:443", "*.b.a.com:80")
    assert told.keys() == {(0, "ambiguous-wildcards"), (1, "ambiguous-wildcards")}
    assert told[1, "ambiguous-wildcards"] == (
        "“*.b.a.com:80” and “*.a.com:443” match the same hosts with different ports. The agent uses one of them at"
        " random. Use one port, or list the hosts by name."
    )
    assert conflicts_of("*.a.com:443", "*.b.a.com:443", "*.c.com:80") == {}
    assert conflicts_of("a.*.org:443", "b.*.org:80") == {}
    assert conflicts_of("a.*.org:443", "*.b.org:80").keys() == {(0, "ambiguous-wildcards"), (1, "ambiguous-wildcards")}
    assert (
        "the built-in “*.actions.githubusercontent.com:443”"
        in conflicts_of("*.githubusercontent.com:80")[0, "ambiguous-wildcards"]
    )


def test_a_wildcard_that_replaces_a_built_in_one_is_told():
    told = conflicts_of("*.actions.githubusercontent.com:80")
    assert told[0, "replaced-built-in"] == (
        "“*.actions.githubusercontent.com:80” replaces the built-in “*.actions.githubusercontent.com:443”: jobs lose"
        " GitHub's service there. Remove it, or list “*.actions.githubusercontent.com:443” instead."
    )
    assert conflicts_of("*.actions.githubusercontent.com:443") == {}


@given(
    st.lists(
        st.builds(
            "{}:{}".format,
            st.sampled_from(["a.x", "b.a.x", "*.x", "*.a.x", "a*.x", "b.*", "codeload.github.com", "*.github.com"]),
            st.sampled_from([80, 443]),
        ),
        unique=True,
        max_size=6,
    )
)
def test_a_list_without_conflicts_means_the_same_entry_by_entry(endpoints):
    """What each entry says alone is what it does among the others, unless a warning says otherwise."""
    told = {conflict.endpoint for conflict in conflicts(endpoints)}
    if any("*" in endpoint and endpoint.replace("443", "80") in endpoints for endpoint in endpoints):
        return
    for endpoint in endpoints:
        for host in ("a.x", "b.a.x", "c.x", "c.a.x", "a1.x", "b.y", "codeload.github.com", "api.github.com"):
            port = int(endpoint.rpartition(":")[2])
            if endpoint not in told and agent_rule.verdict([endpoint], host, port) == "allowed":
                assert agent_rule.verdict(endpoints, host, port) == "allowed"


def test_a_store_that_block_mode_cuts_off_from_its_jobs_is_told_with_the_line_to_add():
    text = "egress-policy: block\nallowed-endpoints: github.com\n"
    (problem,) = check(text, stores=["store.octo.example:443"]).problems
    assert (problem.severity, problem.line, problem.column, problem.code) == ("warning", 1, 16, "store-not-listed")
    assert "“store.octo.example:443”" in problem.message
    assert problem.hint == "Add “store.octo.example:443”."
    for quiet in (
        text.replace("block", "audit"),
        text + "disable-telemetry: true\n",
        text.replace("github.com", "github.com store.octo.example"),
        text.replace("github.com", "'*.octo.example'"),
    ):
        assert "store-not-listed" not in problems_codes(quiet, stores=["store.octo.example:443"])
    for reached in ("agent.api.stepsecurity.io:443", "127.0.0.1:8000"):
        assert check(text, stores=[reached]).problems == ()
    both = ["store.octo.example:443", "store.octo.example:8443"]
    assert [problem.hint for problem in check(text, stores=both).problems] == [f"Add “{store}”." for store in both]
    sets = KnownSets({"ours": ("store.octo.example:443",)})
    assert check(text + "endpoint-sets: ours\n", sets=sets, stores=["store.octo.example:443"]).problems == ()


@pytest.mark.parametrize(
    "text",
    [
        "egress-policy: ${{ inputs.mode }}\n",
        "egress-policy: block\ndisable-sudo: ${{ inputs.sudo }}\n",
        "egress-policy: block\nallowed-endpoints: ${{ inputs.endpoints }}\n",
        "egress-policy: block\nallowed-endpoints: >\n  github.com\n  ${{ vars.HOST }}:443\n",
        "egress-policy: block\nallowed-endpoints:\n  - github.com\n  - ${{ vars.HOST }}:443\n",
        "egress-policy: block\nallowed-endpoints: '${{ vars.HOST }}:443'\n",
        "egress-policy: block\nallowed-endpoints: [${{ vars.HOST }}:443]\n",
        "egress-policy: block\nendpoint-sets: ${{ inputs.set }}\n",
        "lockdown-mode:\n  enabled: true\n  detections:\n    - ${{ inputs.detection }}\n",
    ],
)
def test_a_github_expression_is_one_error_that_says_so(text):
    (problem,) = check(text, sets=KnownSets()).errors
    assert problem.code == "github-expression"
    assert "does not evaluate" in problem.message


def test_a_wildcard_without_quotes_is_told_to_have_some():
    (problem,) = check("egress-policy: block\nallowed-endpoints:\n  - *.github.com:443 # GitHub\n").errors
    assert (problem.line, problem.column, problem.code) == (3, 5, "unquoted-wildcard")
    assert problem.hint == 'Put the value in quotes: "*.github.com:443".'


def test_what_stands_below_hundreds_of_doubts_is_read_all_the_same():
    endpoints = [f"h{number}.example.com:8443" for number in range(300)]
    checked = check("\n  ".join(["allowed-endpoints: >", *endpoints]) + "\negress-policy: block\ndisable-sudo: true\n")
    assert len(checked.warnings) >= 300
    assert checked.document.allowed_endpoints == tuple(endpoints)
    assert (checked.document.egress_policy, checked.document.disable_sudo) == ("block", True)


def test_lockdown_outside_a_cluster_is_doubted_once_the_scopes_are_known():
    text = "lockdown-mode:\n  enabled: true\n  detections: [Reverse-Shell]\n"
    assert problems_of(text) == []
    assert problems_of(text, scope_types={"cluster"}) == []
    assert problems_of(text, scope_types={"cluster", "repository"}) == [(1, 1, "lockdown-outside-cluster")]


def test_a_merge_key_in_quotes_is_a_key_that_nobody_knows():
    assert errors_of("'<<': x\n") == [(1, 1, "unknown-key")]
    assert (1, 17, "unknown-key") in errors_of("lockdown-mode: {'<<': x}\n")


def test_a_document_without_content_says_nothing():
    assert errors_of("---") == [(1, 1, "empty-document")]


def test_every_problem_is_told_at_once_in_reading_order():
    text = "egress-policy: blok\nallowed-endpoint: x\ndisable-sudo: maybe\nlockdown-mode: 1\n"
    assert errors_of(text) == [
        (1, 16, "unknown-egress-policy"),
        (2, 1, "unknown-key"),
        (3, 15, "no-switch"),
        (4, 1, "wrong-type"),
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("allowed-endpoint", "allowed-endpoints"),
        ("egress_policy", "egress-policy"),
        ("Disable-Sudo", "disable-sudo"),
        ("lockdown", "lockdown-mode"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(written, meant):
    (problem,) = check(f"{written}: x\n").errors
    assert problem.hint == f"Did you mean “{meant}”?"


def test_the_reply_has_the_contracts_shape():
    text = "egress-policy: block\nallowed-endpoints: a.com\ndisable-sudo: true\n"
    reply = json.loads(compile_reply(check(text).document, owner="octo-org", name="p"))
    assert reply == {
        "policy_name": "p",
        "owner": "octo-org",
        "policyName": "p",
        "allowed_endpoints": ["a.com:443"],
        "egress_policy": "block",
        "disable_sudo": True,
        "disable_sudo_and_containers": False,
        "disable_file_monitoring": False,
        "disable_telemetry": False,
    }


def test_lockdown_is_in_the_reply_where_it_is_set():
    text = "lockdown-mode:\n  enabled: true\n  detections:\n    - Reverse-Shell\n    - Reverse-Shell\n"
    reply = json.loads(compile_reply(check(text).document, owner="o", name="p"))
    assert reply["lockdown"] == {"enabled": True, "detections": ["Reverse-Shell"]}


WORDS = [
    "egress-policy",
    "allowed-endpoints",
    "lockdown-mode",
    "disable-sudo",
    "enabled",
    ":",
    "-",
    ">",
    "|",
    "'",
    '"',
    "[",
    "]",
    "{",
    "}",
    "&a",
    "*a",
    "!!int",
    "<<",
    "#",
    "block",
    "true",
    "on",
    "a.com:443",
    "22:22",
    "---",
    "...",
    "?",
    ",",
    "é",
    "😀",
    "1e999",
    "0x",
    "2024-01-01",
    "~",
]
SEPARATORS = [": ", "\n", "\n  ", "- ", " ", "%YAML 1.1", "\t", "\r\n", "\r", "\0", "\u2028"]
words = st.sampled_from([*WORDS, *SEPARATORS])


@settings(max_examples=400)
@given(st.one_of(st.text(), st.lists(words, max_size=40).map("".join)))
def test_no_text_breaks_the_check(text):
    checked = check(text)
    assert (checked.document is None) == bool(checked.errors)
    for problem in checked.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.message
    if checked.document is not None:
        reply = json.loads(compile_reply(checked.document, owner="o", name="p"))
        assert reply["egress_policy"] in ("audit", "block")
        assert all(isinstance(entry, str) and " " not in entry for entry in reply["allowed_endpoints"])
