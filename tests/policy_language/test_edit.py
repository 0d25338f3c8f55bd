"""Changes of a policy's text that leave alone what they do not change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language import editor
from policystore.policy_language.document import check, written_endpoints

FOLDED = """# Owned by the platform team.
egress-policy: audit  # until all is known

allowed-endpoints: >
  # source
  github.com:443
  api.github.com:443  # releases
  # packages
  ghcr.io:443

# asked for in the audit
disable-sudo: true
"""


def test_equal_values_change_nothing():
    values = {"egress-policy": "audit", "allowed-endpoints": ["github.com:443", "api.github.com:443", "ghcr.io:443"]}
    assert editor.set_values(FOLDED, values) == FOLDED


def test_a_scalar_changes_in_its_place():
    changed = editor.set_values(FOLDED, {"egress-policy": "block", "disable-sudo": False})
    assert changed == FOLDED.replace("egress-policy: audit ", "egress-policy: block ").replace(": true", ": false")


def test_a_new_endpoint_comes_last_and_one_that_goes_takes_its_comment_along():
    changed = editor.set_values(FOLDED, {"allowed-endpoints": ["github.com:443", "ghcr.io:443", "example.com:8443"]})
    assert changed == FOLDED.replace("  api.github.com:443  # releases\n", "").replace(
        "  ghcr.io:443\n", "  ghcr.io:443\n  example.com:8443\n"
    )


def test_entries_move_with_their_comments():
    changed = editor.set_values(FOLDED, {"allowed-endpoints": ["ghcr.io:443", "github.com:443", "api.github.com:443"]})
    assert "  # packages\n  ghcr.io:443\n  # source\n  github.com:443\n  api.github.com:443  # releases\n" in changed
    assert changed.endswith("# asked for in the audit\ndisable-sudo: true\n")


@pytest.mark.parametrize(
    "text",
    [
        "egress-policy: block\nallowed-endpoints: a.com:443 b.com:443\n",
        "egress-policy: block\nallowed-endpoints: [a.com:443, b.com:443]\n",
        "egress-policy: block\nallowed-endpoints: 'a.com:443 b.com:443'\n",
        "egress-policy: block\nallowed-endpoints:\n  - a.com:443\n  - b.com:443 # why\n",
        "egress-policy: block\nallowed-endpoints:\n- a.com:443\n- 'b.com:443'\n",
        "egress-policy: block\nallowed-endpoints: |-\n    a.com:443\n    b.com:443\n",
        "egress-policy: block\r\nallowed-endpoints: >\r\n  a.com:443\r\n  b.com:443\r\n",
        "egress-policy: block\nallowed-endpoints: >\n  a.com:443 b.com:443",
        "---\n  egress-policy: audit\n  allowed-endpoints: >\n    a.com:443\n    b.com:443\n",
    ],
)
def test_every_way_of_writing_a_list_takes_and_gives_entries(text):
    added = editor.add_endpoints(text, ["B.com:443", "*.c.com:443"])
    assert written_endpoints(added) == ["a.com:443", "b.com:443", "*.c.com:443"]
    assert check(added).document.allowed_endpoints == ("a.com:443", "b.com:443", "*.c.com:443")
    removed = editor.set_values(added, {"allowed-endpoints": ["b.com:443", "*.c.com:443"]})
    assert written_endpoints(removed) == ["b.com:443", "*.c.com:443"]
    assert ("\r\n" in text) == ("\r\n" in removed)


def test_an_absent_list_is_written_at_the_end():
    assert editor.add_endpoints("egress-policy: block\n", ["a.com:443"]) == (
        "egress-policy: block\nallowed-endpoints: >\n  a.com:443\n"
    )


def test_taking_the_list_out_keeps_its_comment_lines():
    changed = editor.set_values(FOLDED, {"allowed-endpoints": []})
    assert check(changed).document.allowed_endpoints == ()
    for comment in ("# source", "# packages", "# Owned", "# until all", "# asked"):
        assert comment in changed


def test_lockdown_is_set_changed_and_taken_out():
    text = editor.set_values(FOLDED, {"lockdown-mode": {"enabled": True, "detections": ["Reverse-Shell"]}})
    assert text == FOLDED + "lockdown-mode:\n  enabled: true\n  detections:\n    - Reverse-Shell\n"
    changed = editor.set_values(text, {"lockdown-mode": {"enabled": False, "detections": []}})
    assert changed == FOLDED + "lockdown-mode:\n  enabled: false\n"
    assert editor.set_values(changed, {"lockdown-mode": None}) == FOLDED


@pytest.mark.parametrize("text", ["allowed-endpoints: a.com:443\n", "---\nallowed-endpoints: >\n  a.com:443\n...\n"])
def test_a_policy_whose_last_key_goes_says_what_that_means(text):
    changed = editor.set_values(text, {"allowed-endpoints": []})
    assert changed == text.replace(">\n  ", "").replace("allowed-endpoints: a.com:443", "egress-policy: audit")
    assert check(changed).document.egress_policy == "audit"


@pytest.mark.parametrize(
    "text",
    [
        "disable-sudo: true\n \t",
        "disable-sudo: true\negress-policy: block\nallowed-endpoints: b.com:443\n \t",
        "disable-sudo: true\r\negress-policy: audit\nallowed-endpoints: >\n  b.com:443\r\n",
    ],
    ids=["a tab at the end", "a tab below the list", "lines that end in both ways"],
)
def test_lines_that_look_odd_stand_in_no_ones_way(text):
    document = check(editor.add_endpoints(text, ["a.com:443"])).document
    assert (document.allowed_endpoints[-1], document.disable_sudo) == ("a.com:443", True)


def test_an_exemption_that_lists_something_from_now_on_says_that_it_audits():
    exemption = "lockdown-mode:\n  enabled: false\n"
    for changed in (editor.add_endpoints(exemption, ["a.com:443"]), editor.include_set(exemption, "npm")):
        assert check(changed).document.egress_policy == check(exemption).document.egress_policy == "audit"
    assert "audit" not in editor.add_endpoints("allowed-endpoints: a.com\n", ["b.com:443"])


@pytest.mark.parametrize("text", ["{}", "", "a: b: c"])
def test_a_text_without_keys_is_refused(text):
    with pytest.raises(editor.CannotEdit):
        editor.add_endpoints(text, ["a.com:443"])


@pytest.mark.parametrize("text", ["{# ours\negress-policy: audit\n}", "--- # {}\n{ # ours\negress-policy: audit\n}"])
def test_a_text_in_braces_is_refused_whatever_comment_follows_them(text):
    with pytest.raises(editor.CannotEdit):
        editor.add_endpoints(text, ["a.example.com:443"])


def test_braces_in_a_comment_are_no_reason_to_refuse():
    text = "# {ours}\negress-policy: audit\n"
    assert editor.add_endpoints(text, ["a.example.com:443"]).startswith(text)


def test_a_text_in_braces_is_refused():
    with pytest.raises(editor.CannotEdit):
        editor.set_values("{egress-policy: audit}", {"egress-policy": "block"})


HOSTS = st.from_regex(r"[a-z]{1,6}\.(com|io):[1-9][0-9]{1,3}", fullmatch=True)
LISTS = st.lists(HOSTS, unique=True, max_size=8)
STYLES = st.sampled_from(["folded", "literal", "bullets", "flow", "plain"])


def written(style, endpoints, comments):
    if not endpoints:
        return "egress-policy: block\n"
    noted = [f"{endpoint} # why" if why else endpoint for endpoint, why in zip(endpoints, comments, strict=False)]
    lines = {
        "folded": ["allowed-endpoints: >", *(f"  {entry}" for entry in noted)],
        "literal": ["allowed-endpoints: |", *(f"    {e}" for e in endpoints)],
        "bullets": ["allowed-endpoints:", *(f"  - {entry}" for entry in noted)],
        "flow": [f"allowed-endpoints: [{', '.join(endpoints)}]"],
        "plain": [f"allowed-endpoints: {' '.join(endpoints)}"],
    }[style]
    return "# head\negress-policy: block # mode\n" + "\n".join(lines) + "\n# tail\ndisable-sudo: true\n"


@given(STYLES, LISTS, LISTS, st.lists(st.booleans(), min_size=8, max_size=8))
def test_the_list_comes_out_as_asked_and_the_rest_stays(style, before, after, comments):
    text = written(style, before, comments)
    changed = editor.set_values(text, {"allowed-endpoints": after})
    assert written_endpoints(changed) == after
    assert editor.set_values(changed, {"allowed-endpoints": after}) == changed
    outside = [line for line in text.splitlines() if line.startswith(("#", "egress", "disable"))]
    assert [line for line in changed.splitlines() if line.startswith(("#", "egress", "disable"))] == outside


@given(STYLES, LISTS, LISTS)
def test_adding_and_removing_again_is_as_before(style, before, more):
    text = written(style, before, [False] * 8)
    back = editor.set_values(editor.add_endpoints(text, more), {"allowed-endpoints": before})
    assert written_endpoints(back) == before
    if style in ("folded", "literal", "bullets") and before:
        assert back == text


@given(
    st.fixed_dictionaries(
        {"egress-policy": st.sampled_from(["audit", "block"])},
        optional={
            "allowed-endpoints": LISTS,
            "disable-sudo": st.booleans(),
            "disable-telemetry": st.booleans(),
            "lockdown-mode": st.sampled_from([None, {"enabled": True, "detections": ["Reverse-Shell"]}]),
        },
    )
)
def test_a_new_document_says_what_it_was_given(values):
    document = check(editor.new_document(values)).document
    assert document.egress_policy == values["egress-policy"]
    assert list(document.allowed_endpoints) == values.get("allowed-endpoints", [])
    assert document.disable_sudo == values.get("disable-sudo", False)
    assert (document.lockdown is not None) == (values.get("lockdown-mode") is not None)
