"""What faults and attacks print: the figures at the end of a run, and whether they go on at full length."""

from __future__ import annotations

import pytest

FIGURES = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter, config):
    if lines := config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def tell(request):
    """Keeps a line for the end of the run."""
    return request.config.stash[FIGURES].append


@pytest.fixture
def full(request):
    """Whether faults are done, and attacks tried, at full length."""
    return request.config.getoption("full")
