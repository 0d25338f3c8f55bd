"""Validates the names and descriptions of policies and endpoint sets, and refuses names that are taken."""

from __future__ import annotations

import re
import unicodedata

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from policystore.policies.errors import InvalidDescription, InvalidName, NameTaken
from policystore.policies.models import EndpointSet, Policy

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
            "Start the name with a letter or digit, then use only letters, digits, spaces, dots, hyphens and "
            "underscores."
        )
    if name.lower() in _RESERVED:
        raise InvalidName(f"The name “{name}” is reserved. Choose another name.")
    return name


def set_name(name: str) -> str:
    """The name without spaces around it; spaces within would end it in a policy's text. Raises InvalidName."""
    name = _within_limits(name, "endpoint set")
    if not _SET.fullmatch(name):
        raise InvalidName(
            "Start the name with a letter or digit, then use only letters, digits, dots, hyphens and underscores."
        )
    return name


def description(text: str) -> str:
    """The description without spaces around it. Raises InvalidDescription."""
    text = text.strip()
    if len(text) > MAX_DESCRIPTION:
        raise InvalidDescription(f"The description is too long: {len(text)} characters (maximum {MAX_DESCRIPTION}).")
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\r\n\t" for character in text):
        raise InvalidDescription("Remove the control characters from the description.")
    return text


def _within_limits(name: str, what: str) -> str:
    name = name.strip()
    if not name:
        raise InvalidName(f"Enter a name for the {what}.")
    if len(name) > MAX_NAME:
        raise InvalidName(f"The name is too long: {len(name)} characters (maximum {MAX_NAME}).")
    return name


def save_named(row: Policy | EndpointSet, *, force_insert: bool = False) -> None:
    """Save a policy or an endpoint set under its name. Raises NameTaken."""
    row.name_key = row.name.lower()
    try:
        with transaction.atomic():
            row.save(force_insert=force_insert)
    except IntegrityError as error:
        same: QuerySet[Policy] | QuerySet[EndpointSet] = type(row).objects.filter(name_key=row.name_key)
        there = same.filter(organization=row.organization).exclude(pk=row.pk).first()
        if there is None:
            raise
        what = "a policy" if isinstance(row, Policy) else "an endpoint set"
        message = f"The organization already has {what} named “{there.name}”. Choose another name."
        raise NameTaken(message) from error
