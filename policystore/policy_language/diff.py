"""Two texts side by side: which lines were added, removed or changed, and which words within a changed line.

Lines and words are compared by diff-match-patch, which is given each of them as one character.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile, zip_longest
from operator import itemgetter
from typing import Literal, NamedTuple

from diff_match_patch import diff_match_patch

from policystore.policy_language.yaml_reader import is_invisible

RowKind = Literal["equal", "added", "removed", "changed", "gap"]
Operation = tuple[int, list[str]]

_WORD = re.compile(r"\w+|\s+|[^\w\s]")
# Past this, marking words costs more time than a reader gains from it.
MAX_MARKED_LINE = 2000
# Of a diff with more changed lines than this, the words of the rest are not marked, nor those of lines that differ in
# so many words that comparing each with each would exceed the other limit.
MAX_MARKED_ROWS = 400
MAX_COMPARISONS = 100_000
# A diff of lines that takes longer takes more of them for changed than need be.
SECONDS_FOR_LINES = 0.02
# Lines that have less than this in common do not face each other for their likeness.
LEAST_PAIRED = 0.5
# Past this many comparisons of a line with a line, the lines of the rest face each other by position.
MAX_PAIRS = 5_000
# Of two lines that share less than this of their words, both are shown as wholly changed.
LEAST_LIKENESS = 0.3


class Segment(NamedTuple):
    """A piece of a line; `changed` where the other side has something else."""

    text: str
    changed: bool = False


Line = tuple[Segment, ...]


class DiffRow(NamedTuple):
    """A row of the side-by-side view; numbers are 1-based and None on the side that has no line.

    A row of kind `gap` replaces `hidden` equal lines that are left out.
    """

    kind: RowKind
    left_number: int | None = None
    right_number: int | None = None
    left: Line = ()
    right: Line = ()
    hidden: int = 0


@dataclass(slots=True)
class _Marks:
    """The work that is left for a diff: lines to mark, and comparisons of words and of lines with each other."""

    rows: int = MAX_MARKED_ROWS
    comparisons: int = MAX_COMPARISONS
    pairs: int = MAX_PAIRS

    def take_pairs(self, needed: int) -> bool:
        """Spend `needed` comparisons of lines; False if not as many are left."""
        if needed > self.pairs:
            return False
        self.pairs -= needed
        return True

    def take(self, before: Sequence[str], after: Sequence[str]) -> bool:
        """Spend the comparisons for the words of two lines; False if not enough are left.

        The words that both lines begin or end with need no comparison.
        """
        first = _same(before, after)
        last = _same(before[first:][::-1], after[first:][::-1])
        needed = (len(before) - first - last) * (len(after) - first - last)
        if not self.rows or needed > self.comparisons:
            return False
        self.rows, self.comparisons = self.rows - 1, self.comparisons - needed
        return True


def _same(before: Sequence[str], after: Sequence[str]) -> int:
    pairs = enumerate(zip(before, after, strict=False))
    return next((number for number, (left, right) in pairs if left != right), min(len(before), len(after)))


def side_by_side(before: str, after: str, *, context: int | None = 3) -> list[DiffRow]:
    """The rows of both texts side by side; equal texts give none.

    `context` is how many equal lines stay around each change, None for all of them.
    """
    if before == after:
        return []
    rows = list(_rows(_operations(_lines(before), _lines(after))))
    return rows if context is None else _folded(rows, context)


def _lines(text: str) -> list[str]:
    """The lines with their ends, so that a missing final newline and a changed line end are differences too."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _operations(before: Sequence[str], after: Sequence[str]) -> list[Operation]:
    """Runs of equal (0), removed (-1) and added (1) items, by an exact and fast diff of their codes.

    Only items that both sides have are compared: all others were removed or added in any case, and would cost the most.
    """
    shared = set(before).intersection(after)
    changes = _compared([item for item in before if item in shared], [item for item in after if item in shared])
    old, new = iter(before), iter(after)
    found: list[Operation] = []
    for operation, items in changes:
        for item in items:
            if operation <= 0:
                found.extend((-1, [skipped]) for skipped in takewhile(item.__ne__, old))
            if operation >= 0:
                found.extend((1, [skipped]) for skipped in takewhile(item.__ne__, new))
            found.append((operation, [item]))
    found += [(operation, rest) for operation, rest in ((-1, list(old)), (1, list(new))) if rest]
    return [(operation, [item for _, run in runs for item in run]) for operation, runs in groupby(found, itemgetter(0))]


def _compared(before: Sequence[str], after: Sequence[str]) -> list[Operation]:
    codes: dict[str, str] = {}
    texts: dict[str, str] = {}

    def encode(items: Iterable[str]) -> str:
        encoded = []
        for item in items:
            code = codes.setdefault(item, _code(len(codes)))
            texts[code] = item
            encoded.append(code)
        return "".join(encoded)

    engine = diff_match_patch()
    engine.Diff_Timeout = SECONDS_FOR_LINES
    changes = engine.diff_main(encode(before), encode(after), False)
    return [(operation, [texts[code] for code in run]) for operation, run in changes]


def _code(number: int) -> str:
    # Surrogates are no characters of their own.
    return chr(number + 1 if number + 1 < 0xD800 else number + 1 + 0x800)


def _rows(operations: Iterable[Operation]) -> Iterator[DiffRow]:
    left_number = right_number = 1
    marks = _Marks()
    for removed, added, equal in _blocks(operations):
        yield from _changed_rows(removed, added, left_number, right_number, marks)
        left_number, right_number = left_number + len(removed), right_number + len(added)
        for line in equal:
            shown = (Segment(_shown(line)),)
            yield DiffRow("equal", left_number, right_number, shown, shown)
            left_number, right_number = left_number + 1, right_number + 1


def _blocks(operations: Iterable[Operation]) -> Iterator[tuple[list[str], list[str], list[str]]]:
    removed: list[str] = []
    added: list[str] = []
    for operation, items in operations:
        if operation == 0:
            yield removed, added, items
            removed, added = [], []
        elif operation < 0:
            removed += items
        else:
            added += items
    yield removed, added, []


def _changed_rows(
    removed: list[str], added: list[str], left_from: int, right_from: int, marks: _Marks
) -> Iterator[DiffRow]:
    for left_index, right_index in _paired(removed, added, marks):
        left_number = None if left_index is None else left_from + left_index
        right_number = None if right_index is None else right_from + right_index
        left = "" if left_index is None else removed[left_index]
        right = "" if right_index is None else added[right_index]
        if right_index is None:
            yield DiffRow("removed", left_number, None, (Segment(_shown(left)),), ())
        elif left_index is None:
            yield DiffRow("added", None, right_number, (), (Segment(_shown(right)),))
        elif left == right:
            # A diff that ran out of time takes whole stretches for changed.
            shown = (Segment(_shown(left)),)
            yield DiffRow("equal", left_number, right_number, shown, shown)
        else:
            marked_left, marked_right = _marked(_shown(left), _shown(right), marks)
            yield DiffRow("changed", left_number, right_number, marked_left, marked_right)


def _paired(removed: Sequence[str], added: Sequence[str], marks: _Marks) -> Iterator[tuple[int | None, int | None]]:
    """The lines side by side, by their index: lines that are alike face each other, the others by position."""
    left = right = 0
    for left_end, right_end in [*_alike(removed, added, marks), (len(removed), len(added))]:
        yield from zip_longest(range(left, left_end), range(right, right_end))
        if left_end < len(removed):
            yield left_end, right_end
        left, right = left_end + 1, right_end + 1


def _alike(removed: Sequence[str], added: Sequence[str], marks: _Marks) -> list[tuple[int, int]]:
    """The pairs of lines, in order, that are most alike in total; none where comparing them all takes too long."""
    if not removed or not added or not marks.take_pairs(len(removed) * len(added)):
        return []
    before, after = [_letters(line) for line in removed], [_letters(line) for line in added]
    # best[i][j] is the highest total for the lines from removed[i] and added[j] on.
    best = [[0.0] * (len(added) + 1) for _ in range(len(removed) + 1)]
    likeness = [[_likeness(old, new) for new in after] for old in before]
    for i in reversed(range(len(removed))):
        for j in reversed(range(len(added))):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], best[i + 1][j + 1] + likeness[i][j])
    found, i, j = [], 0, 0
    while i < len(removed) and j < len(added):
        if likeness[i][j] and best[i][j] == best[i + 1][j + 1] + likeness[i][j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return found


def _letters(line: str) -> Counter[str]:
    """The words of a line, each as often as it has letters."""
    counted: Counter[str] = Counter()
    for word in _WORD.findall(line.strip()[:MAX_MARKED_LINE]):
        counted[word] += len(word)
    return counted


def _likeness(one: Counter[str], other: Counter[str]) -> float:
    """The share of letters, 0 to 1, in words that two lines have in common; 0 where it is too small to count."""
    shared = sum(min(count, other[word]) for word, count in one.items() if word in other)
    share = 2 * shared / ((one.total() + other.total()) or 1)
    return share if share >= LEAST_PAIRED else 0.0


def _shown(line: str) -> str:
    """The line without its end; what is invisible is spelled out, since it may be all that differs."""
    if line.endswith("\r\n"):
        return f"{_spelled_out(line[:-2])}␍"
    return _spelled_out(line[:-1]) if line.endswith("\n") else f"{_spelled_out(line)} (no newline at the end)"


def _spelled_out(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    return "".join(f"⟨U+{ord(letter):04X}⟩" if is_invisible(letter) else letter for letter in line)


def _marked(left: str, right: str, marks: _Marks) -> tuple[Line, Line]:
    if not marks.rows or max(len(left), len(right)) > MAX_MARKED_LINE:
        return _unmarked(left, right)
    before, after = _WORD.findall(left), _WORD.findall(right)
    if not marks.take(before, after):
        return _unmarked(left, right)
    operations = _operations(before, after)
    alike = sum(len("".join(words).strip()) for operation, words in operations if operation == 0)
    if alike < LEAST_LIKENESS * max(len(left.strip()), len(right.strip())):
        return _unmarked(left, right)
    return _side(operations, -1), _side(operations, 1)


def _unmarked(left: str, right: str) -> tuple[Line, Line]:
    return (Segment(left, True),), (Segment(right, True),)


def _side(operations: Iterable[Operation], own: int) -> Line:
    return tuple(Segment("".join(words), operation == own) for operation, words in operations if operation in (0, own))


def _folded(rows: list[DiffRow], context: int) -> list[DiffRow]:
    keep = [False] * len(rows)
    for number, row in enumerate(rows):
        if row.kind != "equal":
            for near in range(max(number - context, 0), min(number + context + 1, len(rows))):
                keep[near] = True
    folded: list[DiffRow] = []
    for number, row in enumerate(rows):
        if keep[number]:
            folded.append(row)
        elif folded and folded[-1].kind == "gap":
            folded[-1] = DiffRow("gap", hidden=folded[-1].hidden + 1)
        else:
            folded.append(DiffRow("gap", hidden=1))
    return folded
