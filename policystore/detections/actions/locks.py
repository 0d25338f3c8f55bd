"""Lets a suppression rule and the detections that are stored at the same moment see each other.

Whoever stores detections shares the lock from before the rules are read. Whoever adds a rule has it alone for a moment:
what was stored by the rules before can be seen then, and whoever stores later sees the new one. It is had alone without
anything slow, since agents wait for it, and nothing is locked behind it.
"""

from __future__ import annotations

from typing import Final

from policystore.db import advisory_locks

_SUPPRESSION: Final = 1_347_376_212


def keep_rules(organization_id: int) -> None:
    """Let no suppression rule be added until the transaction ends. Taken after the rows of jobs and detections."""
    advisory_locks.share(_SUPPRESSION, organization_id)


def await_storing(organization_id: int) -> None:
    """Wait for those who store detections of the organization, and let nobody store any until the transaction ends."""
    advisory_locks.have_alone(_SUPPRESSION, organization_id)
