"""Charts as numbers: every bar inside the picture, in proportion, and all of them told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.traffic.charts import BOTTOM, HEIGHT, TOP, WIDTH, Column, stacked

NUMBERS = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=40)


@given(NUMBERS)
def test_bars_stay_in_the_picture_and_stand_on_each_other(numbers):
    chart = stacked([Column(str(n), (("allowed", a, "a"), ("blocked", b, "b"))) for n, (a, b) in enumerate(numbers)])
    for bar in chart.bars:
        assert bar.x >= 0
        assert bar.x + bar.width <= WIDTH + 0.2
        assert bar.y >= TOP - 0.2
        assert bar.y + bar.height <= HEIGHT - BOTTOM + 0.2
    assert len(chart.bars) == sum((a > 0) + (b > 0) for a, b in numbers)


def test_the_lines_have_round_numbers_above_every_column():
    chart = stacked([Column("a", (("allowed", 37, ""),)), Column("b", (("allowed", 3, ""),))])
    assert [number for _, number in chart.lines] == ["0", "20", "40"]
    assert chart.bars[0].height > chart.bars[1].height * 10


def test_nothing_is_a_chart_too():
    assert stacked([]).bars == []
    assert stacked([Column("a", (("allowed", 0, ""),))]).bars == []


@pytest.mark.parametrize(
    ("number", "top"),
    [(999, "1,000"), (9_999, "10k"), (69_000, "100k"), (800_000, "1M"), (3_000_000, "4M"), (10**9, "1,000M")],
)
def test_large_numbers_are_written_short_enough_for_the_room_beside_the_lines(number, top):
    chart = stacked([Column("a", (("allowed", number, ""),))])
    assert chart.lines[-1][1] == top
    assert all(len(written) <= 6 for _, written in chart.lines)
