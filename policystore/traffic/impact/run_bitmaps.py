"""Run bitmaps: many job runs and which endpoints each of them called, so that a policy is replayed over all together.

A run is a position in its bitmap. A set of runs is an integer whose bit `i` represents run `i`. Pure, without Django.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

Endpoint = tuple[str, int]
SECONDS_PER_HOUR = 3600

_AS_FLAGS = bytes.maketrans(b"01", b"\x00\x01")
# The encoded JSON contains no line break.
_END = b"\n"


class WorkflowKey(NamedTuple):
    """What decides which policy a run gets. Parts that its runner did not send are empty."""

    repository: str
    workflow: str
    cluster: str

    @property
    def repository_workflow(self) -> tuple[str, str]:
        """The repository and workflow, regardless of the cluster."""
        return self.repository, self.workflow

    @property
    def label(self) -> str:
        """The workflow as pages show it: `hello-world/ci.yml`, or the repository alone if no workflow was sent."""
        return f"{self.repository}/{self.workflow}" if self.workflow else self.repository


@dataclass(frozen=True, slots=True)
class Run:
    """A run to be added to a bitmap. `hour` is when it began, in hours since 1970."""

    key: WorkflowKey
    hour: int


@dataclass(frozen=True, slots=True)
class Bitmap:
    """Runs and their calls.

    `key_numbers` and `hours` hold, for each run, the index of its key in `keys` and the hour when it began. `callers`
    maps each endpoint to the set of runs that called it.
    """

    keys: tuple[WorkflowKey, ...]
    key_numbers: tuple[int, ...]
    hours: tuple[int, ...]
    callers: Mapping[Endpoint, int]


def select(values: Iterable[int], runs: int) -> Iterator[int]:
    """The values of the runs in a set, given one value for each run."""
    return compress(values, f"{runs:b}".encode()[::-1].translate(_AS_FLAGS))


def build(runs: Mapping[int, Run], calls: Iterable[tuple[int, Endpoint]]) -> Bitmap:
    """Build a bitmap from runs by id and calls as (run id, endpoint). Runs without calls are left out."""
    callers: defaultdict[Endpoint, list[int]] = defaultdict(list)
    for run_id, endpoint in calls:
        callers[endpoint].append(run_id)
    ids = sorted({run_id for called in callers.values() for run_id in called})
    position = {run_id: number for number, run_id in enumerate(ids)}
    keys = sorted({runs[run_id].key for run_id in ids})
    number = {key: index for index, key in enumerate(keys)}
    by_endpoint = {endpoint: _bits(position[run_id] for run_id in called) for endpoint, called in callers.items()}
    return Bitmap(
        keys=tuple(keys),
        key_numbers=tuple(number[runs[run_id].key] for run_id in ids),
        hours=tuple(runs[run_id].hour for run_id in ids),
        callers=dict(sorted(by_endpoint.items())),
    )


def _bits(positions: Iterable[int]) -> int:
    bits = 0
    for position in positions:
        bits |= 1 << position
    return bits


def encode(bitmap: Bitmap) -> bytes:
    """Encode a bitmap for storage: JSON followed by a row of bits per endpoint, compressed."""
    width = _width(len(bitmap.key_numbers))
    head = {
        "keys": bitmap.keys,
        "key_numbers": bitmap.key_numbers,
        "hours": bitmap.hours,
        "endpoints": list(bitmap.callers),
    }
    rows = b"".join(runs.to_bytes(width, "little") for runs in bitmap.callers.values())
    return zlib.compress(json.dumps(head, separators=(",", ":")).encode() + _END + rows, level=6)


def decode(content: bytes) -> Bitmap:
    """Decode what `encode` returned."""
    text, _, rows = zlib.decompress(content).partition(_END)
    head = json.loads(text)
    width = _width(len(head["key_numbers"]))
    callers = {
        (host, port): int.from_bytes(rows[number * width : (number + 1) * width], "little")
        for number, (host, port) in enumerate(head["endpoints"])
    }
    keys = tuple(WorkflowKey(*names) for names in head["keys"])
    return Bitmap(keys=keys, key_numbers=tuple(head["key_numbers"]), hours=tuple(head["hours"]), callers=callers)


def _width(runs: int) -> int:
    return (runs + 7) // 8
