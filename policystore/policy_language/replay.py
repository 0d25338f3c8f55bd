"""What a policy would do to observed traffic: a draft replayed over sheets of runs, by the agent's own rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from policystore.policy_language.endpoint_matcher import AllowList, Pattern, Verdict, full_name, parse_allowed
from policystore.policy_language.run_bitmaps import Endpoint, Place, Sheet, members

DETAILED = 50


@dataclass(frozen=True, slots=True)
class Ruling:
    """What runs are judged by: a list (None where no policy applies and every call is allowed), and whether it is
    enforced.

    `gives_up` is the entry that makes the agent stop enforcing a policy in block mode; empty where there is none.
    """

    allowed: AllowList | None = None
    blocks: bool = False
    gives_up: str = ""

    @classmethod
    def of(cls, egress_policy: str, allowed: AllowList) -> Ruling:
        """A policy's mode and list."""
        is_block = egress_policy == "block"
        return cls(allowed, is_block and not allowed.gives_up, allowed.gives_up if is_block else "")

    def verdict(self, endpoint: Endpoint) -> Verdict:
        """What the list means for a call, whatever the mode."""
        return Verdict.ALLOWED if self.allowed is None else self.allowed.verdict(*endpoint)


NO_POLICY = Ruling()


@dataclass(frozen=True, slots=True)
class Seen:
    """An endpoint that some runs called: how many, in which places, and in which hour (from 1970) the last one began.

    Places and hour are told of the first DETAILED endpoints of a list alone. `is_fresh` says that the ruling before
    does not block it.
    """

    host: str
    port: int
    runs: int
    places: tuple[Place, ...]
    last_hour: int
    is_fresh: bool

    @property
    def written(self) -> str:
        """`host:port`, as a policy lists it."""
        return f"{self.host}:{self.port}"

    @property
    def workflows(self) -> list[tuple[str, str]]:
        """The repositories and workflows whose runs called it."""
        return sorted({place.of for place in self.places})


@dataclass(frozen=True, slots=True)
class Replay:
    """What some runs that were under one ruling (`before`) meet with under another one (`after`).

    `off_list` counts runs with a call that is not on the new list, whatever its mode; `undetermined` those of the
    others with a call that the agent allows or blocks at random. `more` and `fewer` count runs that only the new ruling
    blocks for certain and that only the old one does. `off_list_endpoints`, `undetermined_endpoints` and
    `freed_endpoints` are what these called, most runs first; an endpoint is freed if the old ruling blocks it and the
    new one allows it.
    """

    before: Ruling
    after: Ruling
    runs_by_place: Mapping[Place, int] = field(default_factory=dict)
    off_list_by_place: Mapping[Place, int] = field(default_factory=dict)
    more: int = 0
    fewer: int = 0
    undetermined: int = 0
    off_list_endpoints: Sequence[Seen] = ()
    undetermined_endpoints: Sequence[Seen] = ()
    freed_endpoints: Sequence[Seen] = ()
    called: frozenset[Endpoint] = frozenset()

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return sum(self.runs_by_place.values())

    @property
    def off_list(self) -> int:
        """How many of them called something that is off the new list."""
        return sum(self.off_list_by_place.values())

    @property
    def workflows(self) -> set[tuple[str, str]]:
        """The workflows of all runs."""
        return {place.of for place in self.runs_by_place}

    @property
    def off_list_workflows(self) -> set[tuple[str, str]]:
        """The workflows of the runs with a call off the new list."""
        return {place.of for place in self.off_list_by_place}


@dataclass(frozen=True, slots=True)
class _Page:
    """A sheet inside a window: its places by their number in the whole traffic, and the runs of each that count."""

    sheet: Sheet
    where: list[int]
    runs: dict[int, int]
    newest: int


class Traffic:
    """The runs of a window of time, ready to be replayed."""

    def __init__(self, sheets: Iterable[Sheet], *, since: int = 0) -> None:
        """Runs that began before the hour `since` are left out."""
        self._numbers: dict[Place, int] = {}
        pages = [self._page(sheet, since) for sheet in sheets]
        self._pages = sorted((page for page in pages if page.runs), key=lambda page: page.newest, reverse=True)
        self._places = list(self._numbers)

    def _page(self, sheet: Sheet, since: int) -> _Page:
        numbers = [self._numbers.setdefault(place, len(self._numbers)) for place in sheet.places]
        where = [numbers[place] for place in sheet.where]
        runs = dict.fromkeys(numbers, 0)
        for position, (place, hour) in enumerate(zip(where, sheet.hours, strict=True)):
            if hour >= since:
                runs[place] |= 1 << position
        return _Page(sheet, where, {place: some for place, some in runs.items() if some}, max(sheet.hours, default=0))

    def runs_by_place(self) -> dict[Place, int]:
        """How many runs each place had."""
        counted: Counter[int] = Counter()
        for page in self._pages:
            _count(counted, page.runs.items())
        return self._named(counted)

    def replay(self, places: Collection[Place], *, before: Ruling = NO_POLICY, after: Ruling) -> Replay:
        """What the runs of these places meet with under `after`, and how that differs from `before`."""
        tally = _Tally(before, after)
        wanted = {self._numbers[place] for place in places if place in self._numbers}
        for page in self._pages:
            runs = {place: some for place, some in page.runs.items() if place in wanted}
            if runs:
                tally.add(page, runs)
        return Replay(
            before=before,
            after=after,
            runs_by_place=self._named(tally.runs),
            off_list_by_place=self._named(tally.off_list),
            more=tally.more,
            fewer=tally.fewer,
            undetermined=tally.undetermined,
            off_list_endpoints=self._seen(tally, tally.off),
            undetermined_endpoints=self._seen(tally, tally.unsure),
            freed_endpoints=self._seen(tally, tally.freed),
            called=frozenset(tally.verdicts),
        )

    def _named(self, counted: Mapping[int, int]) -> dict[Place, int]:
        return {self._places[number]: runs for number, runs in counted.items()}

    def _seen(self, tally: _Tally, found: Mapping[Endpoint, list[_Callers]]) -> list[Seen]:
        counted = {endpoint: sum(runs.bit_count() for _, runs in on) for endpoint, on in found.items()}
        ordered = sorted(counted, key=lambda endpoint: (-counted[endpoint], endpoint))
        return [
            Seen(
                *endpoint,
                runs=counted[endpoint],
                places=self._places_of(found[endpoint]) if number < DETAILED else (),
                last_hour=_last_hour(found[endpoint]) if number < DETAILED else 0,
                is_fresh=not tally.verdicts[endpoint].was_blocked,
            )
            for number, endpoint in enumerate(ordered)
        ]

    def _places_of(self, on: Sequence[_Callers]) -> tuple[Place, ...]:
        numbers: set[int] = set()
        for page, runs in on:
            numbers.update(members(page.where, runs))
        return tuple(sorted(self._places[number] for number in numbers))


@dataclass(frozen=True, slots=True)
class _Judged:
    """What both rulings do with one endpoint; `after` whatever the new ruling's mode."""

    after: Verdict
    was_blocked: bool
    was_unsure: bool
    is_freed: bool


_Callers = tuple[_Page, int]


class _Tally:
    """Counts page by page; places by their number."""

    def __init__(self, before: Ruling, after: Ruling) -> None:
        self._before, self._after = before, after
        self.verdicts: dict[Endpoint, _Judged] = {}
        self.runs: Counter[int] = Counter()
        self.off_list: Counter[int] = Counter()
        self.more = self.fewer = self.undetermined = 0
        self.off: defaultdict[Endpoint, list[_Callers]] = defaultdict(list)
        self.unsure: defaultdict[Endpoint, list[_Callers]] = defaultdict(list)
        self.freed: defaultdict[Endpoint, list[_Callers]] = defaultdict(list)

    def add(self, page: _Page, by_place: Mapping[int, int]) -> None:
        concerned = _union(by_place.values())
        off_list = unsure = was_blocked = was_unsure = 0
        for endpoint, callers in page.sheet.callers.items():
            runs = callers & concerned
            if not runs:
                continue
            judged = self.verdicts.get(endpoint) or self._judge(endpoint)
            if judged.after is Verdict.BLOCKED:
                off_list |= runs
                self.off[endpoint].append((page, runs))
            elif judged.after is Verdict.UNDETERMINED:
                unsure |= runs
                self.unsure[endpoint].append((page, runs))
            if judged.was_blocked:
                was_blocked |= runs
            if judged.was_unsure:
                was_unsure |= runs
            if judged.is_freed:
                self.freed[endpoint].append((page, runs))
        is_blocked, is_unsure = (off_list, unsure) if self._after.blocks else (0, 0)
        self.more += (is_blocked & ~was_blocked & ~was_unsure).bit_count()
        self.fewer += (was_blocked & ~is_blocked & ~is_unsure).bit_count()
        self.undetermined += (unsure & ~off_list).bit_count()
        _count(self.runs, by_place.items())
        _count(self.off_list, ((place, runs & off_list) for place, runs in by_place.items() if runs & off_list))

    def _judge(self, endpoint: Endpoint) -> _Judged:
        after, before = self._after.verdict(endpoint), self._before.verdict(endpoint)
        was_blocked = self._before.blocks and before is Verdict.BLOCKED
        was_unsure = self._before.blocks and before is Verdict.UNDETERMINED
        is_allowed = after is Verdict.ALLOWED or not self._after.blocks
        judged = _Judged(after, was_blocked, was_unsure, was_blocked and is_allowed)
        self.verdicts[endpoint] = judged
        return judged


def _count(counted: Counter[int], by_place: Iterable[tuple[int, int]]) -> None:
    for place, runs in by_place:
        counted[place] += runs.bit_count()


def _last_hour(on: Sequence[_Callers]) -> int:
    """Pages come newest first, so that mostly one is looked at."""
    last = 0
    for page, runs in on:
        if page.newest > last:
            last = max(last, *members(page.sheet.hours, runs))
    return last


def _union(runs: Iterable[int]) -> int:
    found = 0
    for some in runs:
        found |= some
    return found


def unused(entries: Sequence[str], called: Collection[Endpoint]) -> list[str]:
    """The entries of a list that allow none of the called endpoints, in their order.

    A wildcard allows nothing with the second port that it is listed with, and nothing for a host that is listed, or
    that the agent itself lists, by name. Of wildcards of which the agent picks one at random, each counts as used.
    """
    allowed = AllowList.from_entries(entries)
    by_wildcard = [(full_name(host), port) for host, port in called if allowed.tries_wildcards(host)]
    first_ports: dict[str, int] = {}
    found = []
    for entry in entries:
        for endpoint in parse_allowed(entry):
            if endpoint.wildcard:
                pattern, port = Pattern.of(endpoint.domain), endpoint.port
                counts = first_ports.setdefault(endpoint.domain, port) == port
                is_used = counts and any(port == theirs and pattern.matches(name) for name, theirs in by_wildcard)
            else:
                is_used = (endpoint.domain.removesuffix("."), endpoint.port) in called
            if not is_used:
                found.append(entry)
    return found
