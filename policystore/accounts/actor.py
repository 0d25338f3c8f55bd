"""The author of a change, as the history names it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """The person (`user`), key (`api_key`), command (`code`) or part of the store itself (`system`) behind a change.

    `user_id` is a person's id in the store, which stays when their name changes.
    `approved_by` names the second person, where the change waited for one.
    """

    name: str
    kind: str = "user"
    approved_by: str = ""
    user_id: int | None = None


SYSTEM = Actor(name="Policy Store", kind="system")
