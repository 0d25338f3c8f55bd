"""Every benchmark runs, at a size at which its figures mean nothing, and gets the replies that it expects."""

import subprocess
import sys

import pytest

from tests.benchmarks.__main__ import BENCHMARKS, FALLS_SHORT
from tests.benchmarks.figures import HEADING, Figure, median, table
from tests.both_databases import ROOT, clean_environment

# Each starts the databases that it needs; one run of them is enough.
pytestmark = pytest.mark.production


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_runs_and_prints_its_figures(name):
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", name, "--tiny"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, FALLS_SHORT), done.stderr
    assert len(done.stdout.splitlines()) > 2, done.stderr
    assert done.stdout.startswith(f"| {HEADING[0]} ")


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure("a", 0.8, least=0.75), "holds"),
        (Figure("a", 0.7, least=0.75), "FALLS SHORT"),
        (Figure("a", 2.1, most=2.0), "FALLS SHORT"),
        (Figure("a", 2.0, most=2.0), "holds"),
        (Figure("a", 2.0), "-"),
    ],
)
def test_a_figure_stands_beside_its_target(figure, verdict):
    assert figure.cells[3] == verdict
    assert verdict in table([figure])


def test_the_median_is_told_with_its_spread():
    assert median("a", [3.0, 1.0, 2.0], unit="ms").cells[1] == "2 ms"
    assert "1 to 3 in 3 runs" in median("a", [3.0, 1.0, 2.0]).note
