"""Validates the names and descriptions of policies and endpoint sets."""

from __future__ import annotations

import re
import unicodedata

from policystore.policies.errors import InvalidDescription, InvalidName

MAX_NAME = 100
MAX_DESCRIPTION = 500
_POLICY = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")
_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# The name of a policy is a segment of the management API's addresses, where these are taken or ambiguous.
_RESERVED = ("workflow-policy", "workflow-check")


def policy_name(name: str) -> str:
    """The name without spaces around it. Raises InvalidName."""
    name = _within_limits(name, "policy")
    if not _POLICY.fullmatch(name):
        raise InvalidName(
            "The name starts with a letter or digit; after it also spaces, dots, hyphens and underscores may stand."
        )
    if name.lower() in _RESERVED:
        raise InvalidName(f"The name {name} is reserved; choose another name.")
    return name


def set_name(name: str) -> str:
    """The name without spaces around it; spaces within would end it in a policy's text. Raises InvalidName."""
    name = _within_limits(name, "endpoint set")
    if not _SET.fullmatch(name):
        raise InvalidName(
            "The name starts with a letter or digit; after it also dots, hyphens and underscores may stand."
        )
    return name


def description(text: str) -> str:
    """The description without spaces around it. Raises InvalidDescription."""
    text = text.strip()
    if len(text) > MAX_DESCRIPTION:
        raise InvalidDescription(f"The description has {len(text)} characters; at most {MAX_DESCRIPTION} fit.")
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\r\n\t" for character in text):
        raise InvalidDescription("The description has control characters in it; remove them.")
    return text


def _within_limits(name: str, what: str) -> str:
    name = name.strip()
    if not name:
        raise InvalidName(f"Give the {what} a name.")
    if len(name) > MAX_NAME:
        raise InvalidName(f"The name has {len(name)} characters; at most {MAX_NAME} fit.")
    return name
