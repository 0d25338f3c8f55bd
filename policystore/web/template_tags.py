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
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.timezone import localtime
from lucide.templatetags.lucide import lucide

register = template.Library()
# Drawing its icons took two fifths of the CPU time of a page with a list.
_drawn = lru_cache(maxsize=512)(lucide)
# base.css gives icons this size and says how they are drawn.
_USUAL_SIZE = 16
_SHAPE = re.compile(r"<(?!/?svg).*?>")
# ", 3 days" in "1 week, 3 days ago": lists have no room for it.
_SMALLER_UNITS = re.compile(r",.*\s(?=ago|from now)")


@register.simple_tag(takes_context=True, name="lucide")
def icon(context: template.Context, name: str, *, size: int = 24) -> SafeString:
    """An icon of Lucide's: in a whole page a reference to what `icon_symbols` draws once, in a part of one itself."""
    request = context.get("request")
    if request is None or "HX-Request" in request.headers:
        return mark_safe(_drawn(name, size=size))  # noqa: S308 from an installed package
    if not hasattr(request, "icons"):
        request.icons = {}
    request.icons[name] = None
    return _reference(name, size)


@register.simple_tag(takes_context=True)
def icon_symbols(context: template.Context) -> SafeString:
    """The icons that the page uses, for the end of its body."""
    icons: dict[str, None] = getattr(context.get("request"), "icons", {})
    return mark_safe(f"<svg hidden>{''.join(map(_symbol, icons))}</svg>")  # noqa: S308 from an installed package


@lru_cache(maxsize=512)
def _reference(name: str, size: int) -> SafeString:
    sizes = format_html(' width="{}" height="{}"', size, size) if size != _USUAL_SIZE else ""
    return format_html('<svg{}><use href="#icon-{}"/></svg>', sizes, name)


@lru_cache(maxsize=512)
def _symbol(name: str) -> str:
    shapes = "".join(_SHAPE.findall(lucide(name)))
    return f'<symbol id="icon-{name}" viewBox="0 0 24 24">{shapes}</symbol>'


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
