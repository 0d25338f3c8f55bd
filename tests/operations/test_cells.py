"""Counts that processes share."""

import os

from policystore.cells import Cells


def in_a_child(work):
    """Do something in a process that is forked from this one, and wait for its end."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_what_processes_count_is_added_up():
    cells = Cells(3, rows=4)
    cells.add(1, 2.5)

    def count(row):
        cells.write_to(row)
        for _ in range(1000):
            cells.add(1)
        cells.set(2, 7)

    for _ in range(2):
        row = cells.take_row()
        in_a_child(lambda row=row: count(row))
    assert [cells.total(cell) for cell in range(3)] == [0, 2002.5, 14]


def test_the_successor_of_a_process_goes_on_from_its_counts():
    cells = Cells(2, rows=2)
    for _ in range(3):
        row = cells.take_row()
        cells.write_to(row)
        cells.add(0)
        cells.set(1, 5)
        cells.clear(row, 1)
        cells.give_back(row)
    assert (cells.total(0), cells.total(1)) == (3, 0)


def test_no_two_processes_share_a_row_until_there_are_too_many():
    cells = Cells(1, rows=4)
    rows = [cells.take_row() for _ in range(3)]
    assert sorted(rows) == [1, 2, 3]
    assert [cells.take_row(), cells.take_row()] == [0, 0]
    for row in (0, 0, 2):
        cells.give_back(row)
    assert [cells.take_row(), cells.take_row()] == [2, 0]
