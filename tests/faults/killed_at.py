"""A process that delivers what is due and is killed at one step of it: `python -m tests.faults.killed_at STEP TIME`.

TIME says at which time that it comes to the step; the numbers of the steps are the indexes of STEPS.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys

import django

STEPS = (
    ("before", "deliveries", "claim"),
    ("before", "deliveries", "_together"),
    ("before", "deliveries", "Claim"),
    ("before", "addresses", "look_up"),
    ("before", "sending", "_connect"),
    ("after", "sending", "_connect"),
    ("after", "connection", "request"),
    ("after", "connection", "getresponse"),
    ("after", "sending", "_read"),
    ("before", "deliveries", "finish"),
    ("before", "deliveries", "_rows"),
    ("after", "deliveries", "finish"),
)
# From this step on the receiver has the whole message, though the store does not know.
SENT, FINISHED = 6, 11


def kill_at(place, when, name, times):
    """Make the process end by SIGKILL when it comes to the step for this time."""
    real, seen = getattr(place, name), []

    def step(*arguments, **named):
        seen.append(name)
        if when == "before" and len(seen) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if when == "after" and len(seen) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, step)


def main(number, times):
    django.setup()
    from policystore.integrations import delivery, http_client, outbox

    when, place, name = STEPS[number]
    places = {"deliveries": outbox, "addresses": http_client, "sending": http_client}
    kill_at(places.get(place, http.client.HTTPConnection), when, name, times)
    delivery.deliver_due(seconds=60)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "policystore.config.settings")
    main(int(sys.argv[1]), int(sys.argv[2]))
