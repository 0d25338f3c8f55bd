"""Processes of the store that end with their test."""

import pytest

from tests.operations.production import migrated
from tests.operations.running import Quickstart, Running


def _ending(make, started):
    def start(*arguments, **options):
        started.append(make(*arguments, **options))
        return started[-1]

    return start


@pytest.fixture
def run():
    """Starts any command, as `Running` does."""
    started = []
    yield _ending(Running, started)
    for process in started:
        process.end()


@pytest.fixture
def quickstart(tmp_path):
    """Starts quickstart with the given options, each time on the same store, which has its tables already."""
    folder, started = tmp_path / "store", []

    def make(*options, **more):
        if not folder.exists():
            migrated(folder)
        return Quickstart(folder, *options, **more)

    yield _ending(make, started)
    for process in started:
        process.end()
