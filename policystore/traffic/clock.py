"""Corrects the times of a client whose clock is wrong, by when its events arrived."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

TOLERANCE = timedelta(minutes=5)


def corrected(
    client_times: Sequence[datetime | None], *, received_at: datetime, job_began_at: datetime
) -> list[datetime]:
    """When each event of one delivery happened, in the store's time.

    A newest event in the future, or before the job began, shows a wrong clock: then all are shifted so that the newest
    happened as it arrived. Where the client told no time, it is the time of arrival. No event is from longer before the
    job began than clocks are apart: that would make an endpoint look old that is new.
    """
    told = [moment for moment in client_times if moment is not None]
    if not told:
        return [received_at] * len(client_times)
    newest = max(told)
    is_wrong = newest > received_at + TOLERANCE or newest < job_began_at - TOLERANCE
    shift = received_at - newest if is_wrong else timedelta(0)
    earliest = job_began_at - TOLERANCE
    return [
        received_at if moment is None else min(max(_shifted(moment, shift), earliest), received_at)
        for moment in client_times
    ]


def _shifted(moment: datetime, shift: timedelta) -> datetime:
    try:
        return moment + shift
    except OverflowError:
        return moment
