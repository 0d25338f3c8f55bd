"""Filters of every template: no {% load %} is needed (see TEMPLATES in the settings).

These filters, rather than included templates, print whatever may be followed by a comma or a parenthesis: an included
file ends with a line break, which a browser shows as a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.template.defaultfilters import capfirst
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

register = template.Library()
# The style sheet gives icons this size.
USUAL_SIZE = 16
# ", 3 days" in "1 week, 3 days ago": lists have no room for it.
_SMALLER_UNITS = re.compile(r",.*\s(?=ago|from now)")


@register.simple_tag(name="lucide")
@lru_cache(maxsize=512)
def icon(name: str, *, size: int = USUAL_SIZE) -> SafeString:
    """An icon of the sprite; `python -m tests.icons` adds the icons to it that templates name."""
    sizes = format_html(' width="{}" height="{}"', size, size) if size != USUAL_SIZE else ""
    return format_html('<svg{}><use href="{}#{}"/></svg>', sizes, static("icons.svg"), name)


class LinePart(Protocol):
    """A piece of a line of a diff; `changed` if the other side has something else."""

    @property
    def text(self) -> str: ...

    @property
    def changed(self) -> bool: ...


@register.filter
def ago(at: datetime | None) -> SafeString:
    """A <time> element such as "2 weeks ago", with the exact time as its tooltip; empty for None."""
    if not at:
        return SafeString()
    exact = localtime(at)
    shown = _SMALLER_UNITS.sub(" ", str(naturaltime(at)))
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>', exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S}", shown
    )


@register.filter
def badge(value: str) -> SafeString:
    """A badge that shows a mode or state, such as `block`, in the color that the style sheet has for it."""
    return format_html('<span class="badge badge-{}">{}</span>', value, capfirst(value))


@register.filter
def marked(parts: Iterable[LinePart]) -> SafeString:
    """The text of a diff's line, with <mark> around the changed parts."""
    return format_html_join(
        "", "{}", ((format_html("<mark>{}</mark>", p.text) if p.changed else p.text,) for p in parts)
    )
