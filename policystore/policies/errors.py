"""Why a change to a policy or its attachments was refused, in sentences that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence

from policystore.policies.models import Attachment, EndpointSet, Policy, StagedVersion
from policystore.policy_language.problems import Problem

NAMES_SHOWN = 10


class PolicyError(Exception):
    """A refused change; `str()` of it is the sentence to show. `field` is the field that it is about, if it is one."""

    field: str | None = None


class InvalidName(PolicyError):
    """The name cannot name a policy or an endpoint set."""

    field = "name"


class InvalidDescription(PolicyError):
    """The description is too long or holds characters that cannot be stored."""

    field = "description"


class NameTaken(PolicyError):
    """Another policy, or another endpoint set, of the organization has this name already."""

    field = "name"


class InvalidDocument(PolicyError):
    """The text of a policy or an endpoint set has errors; `problems` holds them together with the warnings."""

    field = "text"

    def __init__(self, problems: Sequence[Problem], *, what: str = "policy") -> None:
        errors = sum(1 for problem in problems if problem.severity == "error")
        super().__init__(f"The {what} has {errors} error{'s' if errors != 1 else ''}.")
        self.problems = tuple(problems)


class EditConflict(PolicyError):
    """The policy was saved after the page was opened; `current` is the newer version."""

    def __init__(self, current: Policy) -> None:
        super().__init__(f"{current.changed_by} saved version {current.version} of this policy in the meantime.")
        self.current = current


class PolicyGone(PolicyError):
    """The policy was deleted in the meantime."""


class ForeignScope(PolicyError):
    """The scope belongs to another organization than the policy."""


class InvalidField(PolicyError):
    """A field has an invalid value; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidException(InvalidField):
    """The endpoint, reason, expires_at or owner of an exception is invalid."""


class InvalidBreakGlass(InvalidField):
    """The scope (its name), hours or reason of a break glass is invalid."""


class ScopesTaken(PolicyError):
    """Attaching would replace other policies without confirmation; `taken` are the attachments that it would take."""

    def __init__(self, taken: Sequence[Attachment]) -> None:
        names = ", ".join(f"{holder.scope.label} has {holder.policy.name}" for holder in taken)
        super().__init__(f"Another policy would be replaced: {names}.")
        self.taken = tuple(taken)


class CannotRecompile(PolicyError):
    """A change to what policies are compiled with would break one of them."""


class SetConflict(PolicyError):
    """The endpoint set was saved after the page was opened; `current` is the newer version."""

    def __init__(self, current: EndpointSet) -> None:
        super().__init__(f"{current.changed_by} saved version {current.version} of this endpoint set in the meantime.")
        self.current = current


class SetGone(PolicyError):
    """The endpoint set was deleted in the meantime."""


class SetInUse(PolicyError):
    """Policies include the set, so that it can neither be deleted nor get another name; `names` are theirs."""

    def __init__(self, names: Sequence[str], *, refused: str) -> None:
        shown = ", ".join(names[:NAMES_SHOWN])
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        one = len(names) == 1
        super().__init__(
            f"{'A policy includes' if one else f'{len(names)} policies include'} this set: {shown}{more}. "
            f"Remove it from {'it' if one else 'them'} before you {refused}."
        )
        self.names = tuple(names)


class InvalidNeverAllow(InvalidField):
    """The host or reason of a never-allow host is invalid, or the host is already on the list."""


class NeverAllowGone(PolicyError):
    """The never-allow host was taken off the list in the meantime."""


class StagedConflict(PolicyError):
    """Another version was staged after the page was opened; `current` is that version, or None if it is gone."""

    def __init__(self, current: StagedVersion | None) -> None:
        what_happened = (
            f"{current.staged_by} has staged another version"
            if current
            else "The staged version has gone live or was discarded"
        )
        super().__init__(f"{what_happened} in the meantime.")
        self.current = current


class StagedGone(PolicyError):
    """The policy no longer has a staged version."""


class ScopeNotCovered(PolicyError):
    """A canary scope none of whose jobs gets the policy."""


class TooFewApprovers(PolicyError):
    """Four eyes cannot be turned on, because a member's change could not be approved by another member."""

    def __init__(self, number: int) -> None:
        have = "only one" if number == 1 else "none"
        super().__init__(
            f"Four eyes need at least two members who may approve changes, and the organization has {have}. "
            "Add a security admin or an owner under Settings → Members first."
        )
