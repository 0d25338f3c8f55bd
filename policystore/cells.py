"""Numbers that several processes count up and any of them can read, at the cost of an addition.

They stand in anonymous memory that is made before processes are forked and inherited by all of them: there is no file
that a full disk could take away, and nothing to lock, since each process writes to a row of its own. A row that a
process has left is taken over with what was counted in it, so that sums never go back.
"""

from __future__ import annotations

import mmap

CELL_BYTES = 8


class Cells:
    """So many cells for each of so many processes; each process adds to its own, and reads the sum of all."""

    def __init__(self, cells: int, *, rows: int) -> None:
        self._cells = cells
        self._numbers = memoryview(mmap.mmap(-1, cells * rows * CELL_BYTES)).cast("d")
        # Touched now, so that no process is killed later for want of this memory.
        for index in range(len(self._numbers)):
            self._numbers[index] = 0.0
        # The first row is for whoever was given none.
        self._free = list(range(rows - 1, 0, -1))
        self._start = 0

    def take_row(self) -> int:
        """A row for the next process; with all taken the first, where processes may then overwrite each other."""
        return self._free.pop() if self._free else 0

    def give_back(self, row: int) -> None:
        """The process that had this row has ended."""
        if row != 0:
            self._free.append(row)

    def write_to(self, row: int) -> None:
        """From now on this process counts in this row."""
        self._start = row * self._cells

    def add(self, cell: int, amount: float = 1.0) -> None:
        """Count up a cell of this process."""
        self._numbers[self._start + cell] += amount

    def set(self, cell: int, value: float) -> None:
        """Set a cell of this process."""
        self._numbers[self._start + cell] = value

    def clear(self, row: int, cell: int) -> None:
        """Set a cell of a process that has ended to 0."""
        self._numbers[row * self._cells + cell] = 0.0

    def total(self, cell: int) -> float:
        """The sum over all processes."""
        return sum(self._numbers[cell :: self._cells])
