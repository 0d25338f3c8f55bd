"""Side-by-side diffs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language import diff
from policystore.policy_language.diff import side_by_side


def text_of(line):
    return "".join(segment.text for segment in line)


def changed_words(line):
    return [segment.text for segment in line if segment.changed]


def test_equal_texts_have_no_rows():
    assert side_by_side("a\n", "a\n") == []


def test_an_added_line_stands_alone_on_the_right():
    rows = side_by_side("a\nc\n", "a\nb\nc\n")
    assert [(row.kind, row.left_number, row.right_number) for row in rows] == [
        ("equal", 1, 1),
        ("added", None, 2),
        ("equal", 2, 3),
    ]


def test_a_removed_line_stands_alone_on_the_left():
    assert [row.kind for row in side_by_side("a\nb\n", "a\n")] == ["equal", "removed"]


def test_the_changed_words_within_a_line_are_marked():
    (row,) = side_by_side("  api.github.com:443\n", "  api.github.com:80\n")
    assert row.kind == "changed"
    assert (changed_words(row.left), changed_words(row.right)) == (["443"], ["80"])
    assert (text_of(row.left), text_of(row.right)) == ("  api.github.com:443", "  api.github.com:80")


def test_lines_with_nothing_in_common_are_marked_as_a_whole():
    (row,) = side_by_side("egress-policy: block\n", "github.com:443\n")
    assert changed_words(row.left) == ["egress-policy: block"]


def test_unchanged_lines_far_from_a_change_are_folded():
    before = "".join(f"{number}\n" for number in range(100))
    rows = side_by_side(before, before.replace("50\n", "fifty\n"), context=2)
    assert [row.kind for row in rows] == ["gap", "equal", "equal", "changed", "equal", "equal", "gap"]
    assert (rows[0].hidden, rows[-1].hidden) == (48, 47)


def test_a_missing_newline_at_the_end_is_a_difference():
    (row,) = side_by_side("a", "a\n")
    assert "no newline" in text_of(row.left)


def test_changed_line_ends_are_shown():
    (row,) = side_by_side("a\r\n", "a\n")
    assert (text_of(row.left), text_of(row.right)) == ("a␍", "a")


@pytest.mark.parametrize(("before", "after", "kinds"), [("", "a\nb\n", {"added"}), ("a\nb\n", "", {"removed"})])
def test_a_whole_text_appears_or_goes(before, after, kinds):
    assert {row.kind for row in side_by_side(before, after)} == kinds


def test_lines_of_one_side_alone_stay_where_they_are():
    rows = side_by_side("x\na\ny\nb\nz\n", "a\nq\nb\nr\n")
    told = [(row.kind, text_of(row.left), text_of(row.right)) for row in rows]
    assert told == [
        ("removed", "x", ""),
        ("equal", "a", "a"),
        ("changed", "y", "q"),
        ("equal", "b", "b"),
        ("changed", "z", "r"),
    ]


def test_lines_that_are_alike_face_each_other():
    before = "allowed-endpoints: >\n  a.example.com:443\n  registry.octo.example:443\n  wheels.octo.example:443\n"
    after = "allowed-endpoints: >\n  a.example.com:443\n  wheels.octo.example:8443\n"
    rows = side_by_side(before, after)
    assert [(row.kind, row.left_number, row.right_number) for row in rows] == [
        ("equal", 1, 1),
        ("equal", 2, 2),
        ("removed", 3, None),
        ("changed", 4, 3),
    ]
    assert (changed_words(rows[3].left), changed_words(rows[3].right)) == (["443"], ["8443"])
    back = side_by_side(after, before)
    assert [row.kind for row in back] == ["equal", "equal", "added", "changed"]


def test_a_long_changed_stretch_is_paired_by_position():
    before = "".join(f"  a{number}.example.com:443\n" for number in range(200))
    rows = side_by_side(before, before.replace("443", "80"))
    assert [(row.left_number, row.right_number) for row in rows] == [(number, number) for number in range(1, 201)]


def test_what_is_invisible_is_spelled_out():
    (row,) = side_by_side("# a\u200bb\n", "# ab\n")
    assert text_of(row.left) == "# a⟨U+200B⟩b"


texts = st.lists(
    st.sampled_from(
        ["a", "b c", "b d", "", "x: y", "é", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")]
    ),
    max_size=12,
).map(lambda lines: "".join(f"{line}\n" for line in lines))


@given(texts, texts)
def test_both_texts_can_be_read_off_the_rows(before, after):
    rows = side_by_side(before, after, context=None)
    if before == after:
        assert rows == []
        return
    left = [text_of(row.left) for row in rows if row.left_number is not None]
    right = [text_of(row.right) for row in rows if row.right_number is not None]
    assert left == before.split("\n")[:-1]
    assert right == after.split("\n")[:-1]
    assert [row.left_number for row in rows if row.left_number] == list(range(1, len(left) + 1))
    assert [row.right_number for row in rows if row.right_number] == list(range(1, len(right) + 1))


def test_lines_that_are_the_same_are_never_shown_as_changed_even_where_time_ran_out(monkeypatch):
    monkeypatch.setattr(diff, "_operations", lambda before, after: [(-1, list(before)), (1, list(after))])
    rows = diff.side_by_side("a\nb\nc\n", "a\nx\nc\n", context=None)
    assert [row.kind for row in rows] == ["equal", "changed", "equal"]


def test_lines_that_differ_in_too_many_words_are_marked_as_a_whole():
    before, after = " ".join("abcd" * 240), " ".join("dacb" * 240)
    (row,) = side_by_side(f"{before}\n", f"{after}\n")
    assert row.left == (diff.Segment(before, True),)
    (row,) = side_by_side(f"{before} x\n", f"{before} y\n")
    assert [segment.text for segment in row.left if segment.changed] == ["x"]
