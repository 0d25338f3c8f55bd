"""Cursors are part of page addresses, where anybody can write anything."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.web import pagination
from policystore.web.pagination import decode_cursor, encode_cursor

TYPES = (str, int, datetime)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100)
numbers = st.integers(-pagination.MAX_ROW_ID, pagination.MAX_ROW_ID)
times = st.datetimes(timezones=st.just(UTC))


@given(st.tuples(texts, numbers, times))
def test_a_cursor_is_decoded_to_the_values_it_was_made_of(values):
    assert tuple(decode_cursor(encode_cursor(values), TYPES)) == values


TIME = '"2026-01-01T00:00:00+00:00"'


@pytest.mark.parametrize(
    "content",
    [
        "", "1", "null", "{}", "[]", '["a", 1]', f'["a", 1, {TIME}, 2]', f'[1, 1, {TIME}]', f'["a", "1", {TIME}]',
        f'["a", 1.5, {TIME}]', f'["a", 1{"0" * 24}, {TIME}]', f'["a", NaN, {TIME}]', f'["a", null, {TIME}]',
        f'["a\\u0000", 1, {TIME}]', f'["\\ud800", 1, {TIME}]', f'[null, 1, {TIME}]', f'[["a"], 1, {TIME}]',
        '["a", 1, "2026-01-01T00:00:00"]', '["a", 1, "0001-01-01T00:00:00+14:00"]', '["a", 1, "yesterday"]',
        '["a", 1, "9999-12-31T23:59:59-14:00"]', '["a", 1, 5]', '["a", 1, null]', "[" * 2500, "[" * 5900,
    ],
)  # fmt: skip
def test_a_cursor_with_other_content_is_not_valid(content):
    assert decode_cursor(base64.urlsafe_b64encode(content.encode()).decode().rstrip("="), TYPES) is None


@given(st.text(max_size=50))
def test_any_other_text_is_not_a_valid_cursor(cursor):
    assert decode_cursor(cursor, TYPES) is None


@pytest.mark.parametrize(
    ("written", "id_"),
    [
        ("7", 7),
        ("007", 7),
        ("0", 0),
        (str(2**62 - 1), 2**62 - 1),
        (str(2**62), pagination.MAX_ROW_ID),
        ("9" * 19, pagination.MAX_ROW_ID),
    ],
)
def test_digits_are_a_row_id_that_both_databases_compare(written, id_):
    assert pagination.parse_row_id(written) == id_


# The last ones are digits to Python, too: more than it reads at once, and those of other scripts.
@pytest.mark.parametrize("written", ["", "x", "-1", "+1", " 1", "1.0", "1_0", "9" * 20, "9" * 5000, "\u0663", "\u00b2"])
def test_any_other_text_is_no_row_id(written):
    assert pagination.parse_row_id(written) is None
