"""Parses the Authorization header."""

from __future__ import annotations


def parse(header: str) -> tuple[str, str]:
    """Return the scheme in lower case and the key or token. Some clients send the key alone: the scheme is empty."""
    first, space, rest = header.strip().partition(" ")
    return (first.lower(), rest.strip()) if space else ("", first)
