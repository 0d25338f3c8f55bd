"""The icons of the pages: `python -m tests.icons` draws static/icons.svg with those that templates and modules name."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from lucide import IconDoesNotExist
from lucide.templatetags.lucide import lucide

ROOT = Path(__file__).resolve().parent.parent
SPRITE = ROOT / "static" / "icons.svg"
# These name the icons of their entries, events and integrations.
MODULES = ("accounts/sidebar.py", "audit_log/event_types.py", "integrations/models.py")


def sprite() -> str:
    """The file: a symbol for each icon, by its name."""
    symbols = "".join(_symbol(name, drawn) for name, drawn in sorted(_drawn().items()))
    notice = "<!-- Icons from Lucide (https://lucide.dev), ISC License -->"
    return f'<svg xmlns="http://www.w3.org/2000/svg">\n{notice}\n{symbols}</svg>\n'


def _drawn() -> dict[str, str]:
    templates = "".join(path.read_text() for path in (ROOT / "templates").rglob("*.html"))
    modules = "".join((ROOT / "policystore" / module).read_text() for module in MODULES)
    drawn = {name: lucide(name) for name in re.findall(r'{% lucide "([^"]+)"', templates)}
    for name in re.findall(r'"([a-z0-9-]+)"', modules):
        with suppress(IconDoesNotExist):
            drawn[name] = lucide(name)
    return drawn


def _symbol(name: str, drawn: str) -> str:
    symbol = drawn.replace(' width="24" height="24"', "").replace("<svg", f'<symbol id="{name}"', 1)
    return re.sub(r"\n\s*", "", symbol).replace("</svg>", "</symbol>\n")


if __name__ == "__main__":
    SPRITE.write_text(sprite())
