"""Sheets: many job runs and which endpoints each of them called, as bits, so that a draft is replayed over all at once.

A run is a position on its sheet; what is true of several runs is an integer whose bit `i` stands for run `i`.
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

_AS_FLAGS = bytes.maketrans(b"01", b"\x00\x01")
# JSON has no line break unless it is asked for.
_END = b"\n"


class Place(NamedTuple):
    """What decides which policy a run gets; what its runner did not tell is empty."""

    repository: str
    workflow: str
    cluster: str

    @property
    def of(self) -> tuple[str, str]:
        """The workflow, as runs are grouped by it wherever they ran."""
        return self.repository, self.workflow


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it goes onto a sheet; `hour` counts from 1970 on."""

    place: Place
    hour: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """`where` and `hours` tell of each run the number of its place and its hour; `callers` the runs that called."""

    places: tuple[Place, ...]
    where: tuple[int, ...]
    hours: tuple[int, ...]
    callers: Mapping[Endpoint, int]


def members(values: Iterable[int], runs: int) -> Iterator[int]:
    """Of values that tell one thing of each run, those of the runs whose bits are set."""
    return compress(values, f"{runs:b}".encode()[::-1].translate(_AS_FLAGS))


def fill(runs: Mapping[int, Run], calls: Iterable[tuple[int, Endpoint]]) -> Sheet:
    """A sheet of these runs, by the key that `calls` names them with; a run that called nothing stays off it."""
    callers: defaultdict[Endpoint, list[int]] = defaultdict(list)
    for key, endpoint in calls:
        callers[endpoint].append(key)
    keys = sorted({key for called in callers.values() for key in called})
    position = {key: number for number, key in enumerate(keys)}
    places = sorted({runs[key].place for key in keys})
    number = {place: index for index, place in enumerate(places)}
    return Sheet(
        places=tuple(places),
        where=tuple(number[runs[key].place] for key in keys),
        hours=tuple(runs[key].hour for key in keys),
        callers={endpoint: _bits(position[key] for key in called) for endpoint, called in sorted(callers.items())},
    )


def _bits(positions: Iterable[int]) -> int:
    found = 0
    for position in positions:
        found |= 1 << position
    return found


def pack(sheet: Sheet) -> bytes:
    """The sheet as it is stored: JSON and, after it, a row of bits for each endpoint; compressed."""
    width = _width(len(sheet.where))
    head = {
        "places": sheet.places,
        "where": sheet.where,
        "hours": sheet.hours,
        "endpoints": list(sheet.callers),
    }
    rows = b"".join(runs.to_bytes(width, "little") for runs in sheet.callers.values())
    return zlib.compress(json.dumps(head, separators=(",", ":")).encode() + _END + rows, level=6)


def unpack(packed: bytes) -> Sheet:
    """The sheet that `pack` wrote."""
    written, _, rows = zlib.decompress(packed).partition(_END)
    head = json.loads(written)
    width = _width(len(head["where"]))
    callers = {
        (host, port): int.from_bytes(rows[number * width : (number + 1) * width], "little")
        for number, (host, port) in enumerate(head["endpoints"])
    }
    places = tuple(Place(*names) for names in head["places"])
    return Sheet(places=places, where=tuple(head["where"]), hours=tuple(head["hours"]), callers=callers)


def _width(runs: int) -> int:
    return (runs + 7) // 8
