"""Refuses JSON that would be costly to parse, before it is parsed. Imports no Django.

`json.loads` makes 1.4 million dictionaries of 4 MiB of `{},{},…` and holds the interpreter for most of a second. The
checks here only count bytes, so the worst case takes milliseconds, and what passes is cheap to parse.
"""

from __future__ import annotations

MAX_DEPTH = 16
# More than 1,000 events with fifteen processes each have: objects, arrays and commas; keys and strings.
MAX_SEPARATORS = 120_000
MAX_STRINGS = 240_000
_STRUCTURE = b"[]{},"
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in _STRUCTURE)
_OPENING, _CLOSING, _COMMA = frozenset(b"[{"), frozenset(b"]}"), ord(",")


class TooComplex(ValueError):
    """The text is nested too deeply or has too many values; `str()` says which, and the maximum."""


class TooManyItems(ValueError):
    """The outermost array has more items than allowed; `str()` has the maximum."""


def check(text: bytes, *, max_items: int | None = None) -> None:
    """Check the depth, the number of values and the items of the outermost array, whether or not the text is JSON.

    Raises TooComplex or TooManyItems. Malformed text may pass: parsing it fails soon, or makes few objects.
    """
    structure = _structure(text)
    if len(structure) > 2 * MAX_SEPARATORS or len(structure) - _closing(structure) > MAX_SEPARATORS:
        raise TooComplex(f"it has more than {MAX_SEPARATORS:,} values")
    depth, items = 0, 1
    for byte in structure:
        if byte == _COMMA:
            items += depth == 1
        elif byte in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise TooComplex(f"it is nested more than {MAX_DEPTH} levels deep")
        else:
            depth -= 1
    if max_items is not None and items > max_items and structure.startswith(b"["):
        raise TooManyItems(f"it has more than {max_items:,} items")


def _structure(text: bytes) -> bytes:
    """Return the brackets, braces and commas outside of strings. Raises TooComplex."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 2 * MAX_STRINGS:
        raise TooComplex(f"it has more than {MAX_STRINGS:,} keys and strings")
    outside = b"".join(text.split(b'"')[::2])
    return outside.translate(None, delete=_NOT_STRUCTURE)


def _closing(structure: bytes) -> int:
    return structure.count(b"]") + structure.count(b"}")
