"""Loads the product's templates without their indentation, which would be a third of a page with a long list."""

from __future__ import annotations

import re

from django.template import Origin
from django.template.loaders import filesystem

# Browsers show the indentation of these elements' text.
_INDENTATION = re.compile(r"^[ \t]+|(?P<as_written><(pre|textarea)\b.*?</\2>)", re.DOTALL | re.MULTILINE)


class Loader(filesystem.Loader):
    """Loads `.html` files without indentation, and other files as they are."""

    def get_contents(self, origin: Origin) -> str:
        """The text of a template; its lines stay the same lines, so that errors name the right one."""
        contents: str = super().get_contents(origin)
        return without_indentation(contents) if origin.name.endswith(".html") else contents


def without_indentation(html: str) -> str:
    """Remove the blanks at the start of each line, except in <pre> and <textarea>."""
    return _INDENTATION.sub(lambda found: found["as_written"] or "", html)
