"""Who made a change, as the history names them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """The person (`user`), key (`api_key`) or part of the store itself (`system`) behind a change."""

    name: str
    kind: str = "user"


SYSTEM = Actor(name="Policy Store", kind="system")
