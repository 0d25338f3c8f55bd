"""Filters of every template: no {% load %} is needed (see TEMPLATES in the settings).

These filters, rather than included templates, print whatever may be followed by a comma or a parenthesis: an included
file ends with a line break, which a browser shows as a space.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.template.defaultfilters import capfirst
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from lucide.templatetags.lucide import lucide

register = template.Library()
# Drawing its icons took two fifths of the CPU time of a page with a list.
register.simple_tag(lru_cache(maxsize=512)(lucide), name="lucide")


class LinePart(Protocol):
    """A piece of a line of a diff; `changed` if the other side has something else."""

    @property
    def text(self) -> str: ...

    @property
    def changed(self) -> bool: ...


@register.filter
def ago(at: datetime | None) -> SafeString:
    """A <time> element such as "3 minutes ago", with the exact time as its tooltip; empty for None."""
    if not at:
        return SafeString()
    exact = localtime(at)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>', exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S}", naturaltime(at)
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
