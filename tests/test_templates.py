"""Templates stay readable: djangofmt lays them out, and cannot break a line inside a tag or an attribute.

Pages do not carry that layout.
"""

import pytest
from django.conf import settings
from django.template.loader import get_template

from policystore.web.template_loader import without_indentation
from tests import icons

TEMPLATES = sorted(path for path in (settings.BASE_DIR / "templates").rglob("*") if path.is_file())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(settings.BASE_DIR)))
def test_no_line_is_longer_than_120_characters(path):
    too_long = [number for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert not too_long


def test_a_page_has_no_indentation():
    html = '  <p\n    class="a"\n  >\n    two\n\twords\n  </p>\n'
    assert without_indentation(html) == '<p\nclass="a"\n>\ntwo\nwords\n</p>\n'


@pytest.mark.parametrize("element", ["pre", "textarea"])
def test_text_that_browsers_show_as_written_keeps_its_indentation(element):
    html = f'<{element}\n  class="code"\n>a:\n  - b\n</{element}>\n'
    assert without_indentation(f"<div>\n  {html}  <p>\n") == f"<div>\n{html}<p>\n"


def test_what_is_not_html_keeps_its_indentation():
    assert "\n  " in get_template("runners/scripts/arc-values.yaml").template.source
    assert "\n  " not in get_template("policies/list.html").template.source


def test_the_sprite_has_the_icons_that_pages_name():
    assert icons.SPRITE.read_text() == icons.sprite(), "Run `python -m tests.icons`."
