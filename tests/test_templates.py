"""Templates stay readable: djangofmt lays them out, and cannot break a line inside a tag or an attribute."""

import pytest
from django.conf import settings

TEMPLATES = sorted(path for path in (settings.BASE_DIR / "templates").rglob("*") if path.is_file())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(settings.BASE_DIR)))
def test_no_line_is_longer_than_120_characters(path):
    too_long = [number for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert not too_long
