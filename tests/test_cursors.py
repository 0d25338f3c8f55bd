"""Cursors come back in addresses, where anybody may write anything."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.db import row_ids
from policystore.web import cursors

TYPES = (str, int, datetime)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100)
numbers = st.integers(-row_ids.MOST, row_ids.MOST)
moments = st.datetimes(timezones=st.just(UTC))


@given(st.tuples(texts, numbers, moments))
def test_what_is_written_is_read(values):
    assert tuple(cursors.read(cursors.written(values), TYPES)) == values


MOMENT = '"2026-01-01T00:00:00+00:00"'


@pytest.mark.parametrize(
    "told",
    [
        "", "1", "null", "{}", "[]", '["a", 1]', f'["a", 1, {MOMENT}, 2]', f'[1, 1, {MOMENT}]', f'["a", "1", {MOMENT}]',
        f'["a", 1.5, {MOMENT}]', f'["a", 1{"0" * 24}, {MOMENT}]', f'["a", NaN, {MOMENT}]', f'["a", null, {MOMENT}]',
        f'["a\\u0000", 1, {MOMENT}]', f'["\\ud800", 1, {MOMENT}]', f'[null, 1, {MOMENT}]', f'[["a"], 1, {MOMENT}]',
        '["a", 1, "2026-01-01T00:00:00"]', '["a", 1, "0001-01-01T00:00:00+14:00"]', '["a", 1, "yesterday"]',
        '["a", 1, "9999-12-31T23:59:59-14:00"]', '["a", 1, 5]', '["a", 1, null]', "[" * 2500, "[" * 5900,
    ],
)  # fmt: skip
def test_what_was_not_written_is_refused(told):
    with pytest.raises(ValueError, match=r"."):
        cursors.read(base64.urlsafe_b64encode(told.encode()).decode().rstrip("="), TYPES)


@given(st.text(max_size=50))
def test_no_address_breaks_it(cursor):
    with pytest.raises(ValueError, match=r"."):
        cursors.read(cursor, TYPES)
