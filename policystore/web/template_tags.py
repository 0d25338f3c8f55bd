"""Filters of every template: no {% load %} is needed (see TEMPLATES in the settings).

These filters, rather than included templates, print whatever may be followed by a comma or a parenthesis: an included
file ends with a line break, which a browser shows as a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.template.defaultfilters import capfirst, date
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()
# ", 3 days" in "1 week, 3 days ago": lists have no room for it.
_SMALLER_UNITS = re.compile(r",.*\s(?=ago|from now)")


@register.simple_tag(name="lucide")
@lru_cache(maxsize=512)
def icon(name: str) -> SafeString:
    """An icon of the sprite, in the size that the style sheet gives it; `python -m tests.icons` adds one to it."""
    return format_html('<svg><use href="{}#{}"/></svg>', static("icons.svg"), name)


class LinePart(Protocol):
    """A piece of a line of a diff; `changed` if the other side has something else."""

    @property
    def text(self) -> str: ...

    @property
    def changed(self) -> bool: ...


@register.filter
def ago(at: datetime | None) -> SafeString:
    """A <time> element such as "2 weeks ago"; empty for None."""
    return _time(at, _SMALLER_UNITS.sub(" ", str(naturaltime(at)))) if at else SafeString()


@register.filter
def timestamp(at: datetime, form: str) -> SafeString:
    """A <time> element in one of Django's formats, such as "H:i"."""
    return _time(at, date(at, form))


def _time(at: datetime, shown: str) -> SafeString:
    """A <time> element; js/times.js adds the exact time as its tooltip."""
    return format_html('<time datetime="{}">{}</time>', f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", shown)


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
