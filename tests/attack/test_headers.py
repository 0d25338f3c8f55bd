"""What every page says to the browser: no inline code, no framing, no leaks to other sites."""

from __future__ import annotations

import re

import pytest

from tests.test_permissions import OWN, PAGES, POST_ONLY, built, fill, world

__all__ = ["built", "world"]
pytestmark = pytest.mark.django_db
CONTENT_TYPE = "text/html"


@pytest.mark.parametrize("address", [address for address, answers in PAGES.items() if answers is not POST_ONLY])
def test_a_page_allows_no_inline_code_and_no_frame(world, address):
    clients, values = world
    response = clients["owner"].get(fill(address, values))
    policy = response.headers["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";") if part.strip())
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert directives["frame-ancestors"] == directives["base-uri"] == "'none'"
    assert "unsafe" not in policy
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"
    if response.headers["Content-Type"].startswith(CONTENT_TYPE):
        page = response.content.decode()
        assert not re.search(r"<[^>]+\s(?:style|on[a-z]+)=", page)
        assert not re.search(r"<script(?![^>]*\ssrc=)", page)
        assert "<style" not in page


def test_every_organization_page_is_among_them():
    assert sum(address.startswith(OWN) for address in PAGES) > 40
