import pytest

from policystore.web import pagination


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
def test_digits_are_an_id_that_both_databases_compare(written, id_):
    assert pagination.parse_row_id(written) == id_


# The last ones are digits to Python, too: more than it reads at once, and those of other scripts.
@pytest.mark.parametrize("written", ["", "x", "-1", "+1", " 1", "1.0", "1_0", "9" * 20, "9" * 5000, "\u0663", "\u00b2"])
def test_any_other_text_is_none(written):
    assert pagination.parse_row_id(written) is None
