"""Replays observed traffic under another policy, by the agent's own matching rules. Pure, without Django."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from policystore.policy_language.endpoint_matcher import AllowList, Pattern, Verdict, full_name, parse_allowed
from policystore.traffic.impact.run_bitmaps import SECONDS_PER_HOUR, Bitmap, Endpoint, WorkflowKey, select

DETAILED = 50


@dataclass(frozen=True, slots=True)
class Ruling:
    """What runs are judged by: a list, and whether it is enforced.

    `allowed` is None if no policy applies and every call is allowed. `gives_up` is the entry that makes the agent stop
    enforcing a policy in block mode, or empty.
    """

    allowed: AllowList | None = None
    blocks: bool = False
    gives_up: str = ""

    @classmethod
    def of(cls, egress_policy: str, allowed: AllowList) -> Ruling:
        """The ruling of a policy with this mode and list."""
        is_block = egress_policy == "block"
        return cls(allowed, is_block and not allowed.gives_up, allowed.gives_up if is_block else "")

    def verdict(self, endpoint: Endpoint) -> Verdict:
        """The list's verdict on a call, regardless of the mode."""
        return Verdict.ALLOWED if self.allowed is None else self.allowed.verdict(*endpoint)


NO_POLICY = Ruling()


@dataclass(frozen=True, slots=True)
class CalledEndpoint:
    """An endpoint and the number of runs that called it.

    `keys` are the workflow keys of those runs, and `last_hour` is when the latest one began, in hours since 1970; both
    are only filled in for the first DETAILED endpoints of a list. `is_fresh` means that the ruling before does not
    block it.
    """

    host: str
    port: int
    runs: int
    keys: tuple[WorkflowKey, ...]
    last_hour: int
    is_fresh: bool

    @property
    def text(self) -> str:
        """`host:port`, as a policy lists it."""
        return f"{self.host}:{self.port}"

    @property
    def workflows(self) -> list[str]:
        """The workflows whose runs called it, as pages show them."""
        return [label for _, label in sorted({(key.repository_workflow, key.label) for key in self.keys})]

    @property
    def last_at(self) -> datetime:
        """The time when the latest run began, to the hour."""
        return datetime.fromtimestamp(self.last_hour * SECONDS_PER_HOUR, UTC)


@dataclass(frozen=True, slots=True)
class Replay:
    """The calls of runs that were under one ruling (`before`), judged by another (`after`).

    `off_list` counts runs with a call that is not on the new list, regardless of its mode. `undetermined` counts other
    runs with a call that the agent allows or blocks at random. `more` counts runs that only the new ruling certainly
    blocks, and `fewer` those that only the old one does. `off_list_endpoints`, `undetermined_endpoints` and
    `freed_endpoints` are what these runs called, most runs first. An endpoint is freed if the old ruling blocks it and
    the new one allows it.
    """

    before: Ruling
    after: Ruling
    runs_by_key: Mapping[WorkflowKey, int] = field(default_factory=dict)
    off_list_by_key: Mapping[WorkflowKey, int] = field(default_factory=dict)
    more: int = 0
    fewer: int = 0
    undetermined: int = 0
    off_list_endpoints: Sequence[CalledEndpoint] = ()
    undetermined_endpoints: Sequence[CalledEndpoint] = ()
    freed_endpoints: Sequence[CalledEndpoint] = ()
    called: frozenset[Endpoint] = frozenset()

    @property
    def runs(self) -> int:
        """The number of runs."""
        return sum(self.runs_by_key.values())

    @property
    def off_list(self) -> int:
        """The number of runs that called something that is not on the new list."""
        return sum(self.off_list_by_key.values())

    @property
    def workflows(self) -> set[tuple[str, str]]:
        """The workflows of all runs."""
        return {key.repository_workflow for key in self.runs_by_key}

    @property
    def off_list_workflows(self) -> set[tuple[str, str]]:
        """The workflows of the runs with a call that is not on the new list."""
        return {key.repository_workflow for key in self.off_list_by_key}


@dataclass(frozen=True, slots=True)
class _Page:
    """The part of a bitmap that is inside a window of time.

    Workflow keys are numbered across all pages: `key_numbers` holds the number of each run's key, `runs` the set of
    runs that count for each key number. `newest` is the hour of the latest run.
    """

    bitmap: Bitmap
    key_numbers: list[int]
    runs: dict[int, int]
    newest: int


class Traffic:
    """The runs of a window of time, ready to be replayed."""

    def __init__(self, bitmaps: Iterable[Bitmap], *, since: int = 0) -> None:
        """Leave out runs that began before the hour `since`."""
        self._numbers: dict[WorkflowKey, int] = {}
        pages = [self._page(bitmap, since) for bitmap in bitmaps]
        self._pages = sorted((page for page in pages if page.runs), key=lambda page: page.newest, reverse=True)
        self._keys = list(self._numbers)

    def _page(self, bitmap: Bitmap, since: int) -> _Page:
        numbers = [self._numbers.setdefault(key, len(self._numbers)) for key in bitmap.keys]
        key_numbers = [numbers[index] for index in bitmap.key_numbers]
        runs = dict.fromkeys(numbers, 0)
        for position, (number, hour) in enumerate(zip(key_numbers, bitmap.hours, strict=True)):
            if hour >= since:
                runs[number] |= 1 << position
        runs = {number: some for number, some in runs.items() if some}
        return _Page(bitmap, key_numbers, runs, max(bitmap.hours, default=0))

    def runs_by_key(self) -> dict[WorkflowKey, int]:
        """The number of runs of each workflow key."""
        counted: Counter[int] = Counter()
        for page in self._pages:
            _count(counted, page.runs.items())
        return self._by_key(counted)

    def replay(self, keys: Collection[WorkflowKey], *, before: Ruling = NO_POLICY, after: Ruling) -> Replay:
        """Judge the runs of these keys by `after`, and compare that with `before`."""
        tally = _Tally(before, after)
        numbers = {self._numbers[key] for key in keys if key in self._numbers}
        for page in self._pages:
            runs = {number: some for number, some in page.runs.items() if number in numbers}
            if runs:
                tally.add(page, runs)
        return Replay(
            before=before,
            after=after,
            runs_by_key=self._by_key(tally.runs),
            off_list_by_key=self._by_key(tally.off_list),
            more=tally.more,
            fewer=tally.fewer,
            undetermined=tally.undetermined,
            off_list_endpoints=self._endpoints(tally, tally.off),
            undetermined_endpoints=self._endpoints(tally, tally.unsure),
            freed_endpoints=self._endpoints(tally, tally.freed),
            called=frozenset(tally.verdicts),
        )

    def _by_key(self, counted: Mapping[int, int]) -> dict[WorkflowKey, int]:
        return {self._keys[number]: runs for number, runs in counted.items()}

    def _endpoints(self, tally: _Tally, callers_of: Mapping[Endpoint, list[_Callers]]) -> list[CalledEndpoint]:
        counted = {endpoint: sum(runs.bit_count() for _, runs in callers) for endpoint, callers in callers_of.items()}
        ordered = sorted(counted, key=lambda endpoint: (-counted[endpoint], endpoint))
        return [
            CalledEndpoint(
                *endpoint,
                runs=counted[endpoint],
                keys=self._keys_of(callers_of[endpoint]) if number < DETAILED else (),
                last_hour=_last_hour(callers_of[endpoint]) if number < DETAILED else 0,
                is_fresh=not tally.verdicts[endpoint].was_blocked,
            )
            for number, endpoint in enumerate(ordered)
        ]

    def _keys_of(self, callers: Sequence[_Callers]) -> tuple[WorkflowKey, ...]:
        numbers: set[int] = set()
        for page, remaining in callers:
            # Take the first run, then drop all runs of its key: a round per key rather than per run.
            while remaining:
                number = page.key_numbers[(remaining & -remaining).bit_length() - 1]
                numbers.add(number)
                remaining &= ~page.runs[number]
        return tuple(sorted(self._keys[number] for number in numbers))


@dataclass(frozen=True, slots=True)
class _Judged:
    """The verdicts of both rulings on one endpoint; `after` regardless of the new ruling's mode."""

    after: Verdict
    was_blocked: bool
    was_unsure: bool
    is_freed: bool


# The runs of a page that called an endpoint.
_Callers = tuple[_Page, int]


class _Tally:
    """Counts page by page, by the number of the workflow key."""

    def __init__(self, before: Ruling, after: Ruling) -> None:
        self._before, self._after = before, after
        self.verdicts: dict[Endpoint, _Judged] = {}
        self.runs: Counter[int] = Counter()
        self.off_list: Counter[int] = Counter()
        self.more = self.fewer = self.undetermined = 0
        self.off: defaultdict[Endpoint, list[_Callers]] = defaultdict(list)
        self.unsure: defaultdict[Endpoint, list[_Callers]] = defaultdict(list)
        self.freed: defaultdict[Endpoint, list[_Callers]] = defaultdict(list)

    def add(self, page: _Page, by_key: Mapping[int, int]) -> None:
        concerned = _union(by_key.values())
        off_list = unsure = was_blocked = was_unsure = 0
        for endpoint, callers in page.bitmap.callers.items():
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
        _count(self.runs, by_key.items())
        _count(self.off_list, ((number, runs & off_list) for number, runs in by_key.items() if runs & off_list))

    def _judge(self, endpoint: Endpoint) -> _Judged:
        after, before = self._after.verdict(endpoint), self._before.verdict(endpoint)
        was_blocked = self._before.blocks and before is Verdict.BLOCKED
        was_unsure = self._before.blocks and before is Verdict.UNDETERMINED
        is_allowed = after is Verdict.ALLOWED or not self._after.blocks
        judged = _Judged(after, was_blocked, was_unsure, was_blocked and is_allowed)
        self.verdicts[endpoint] = judged
        return judged


def _count(counted: Counter[int], by_number: Iterable[tuple[int, int]]) -> None:
    for number, runs in by_number:
        counted[number] += runs.bit_count()


def _last_hour(callers: Sequence[_Callers]) -> int:
    """The hour of the latest of these runs. Pages come newest first, so usually only one is read."""
    last = 0
    for page, runs in callers:
        if page.newest > last:
            last = max(last, *select(page.bitmap.hours, runs))
    return last


def _union(sets: Iterable[int]) -> int:
    union = 0
    for runs in sets:
        union |= runs
    return union


def unused(entries: Sequence[str], called: Collection[Endpoint]) -> list[str]:
    """The entries of a list that allow none of the called endpoints, in their order.

    A wildcard allows nothing with a second port that it is listed with, nor for a host that is listed by name, by the
    policy or by the agent itself. If the agent picks one of several wildcards at random, each counts as used.
    """
    allowed = AllowList.from_entries(entries)
    by_wildcard = [(full_name(host), port) for host, port in called if allowed.tries_wildcards(host)]
    first_ports: dict[str, int] = {}
    unused_entries = []
    for entry in entries:
        for endpoint in parse_allowed(entry):
            if endpoint.wildcard:
                pattern, port = Pattern.of(endpoint.domain), endpoint.port
                counts = first_ports.setdefault(endpoint.domain, port) == port
                is_used = counts and any(port == theirs and pattern.matches(name) for name, theirs in by_wildcard)
            else:
                is_used = (endpoint.domain.removesuffix("."), endpoint.port) in called
            if not is_used:
                unused_entries.append(entry)
    return unused_entries
