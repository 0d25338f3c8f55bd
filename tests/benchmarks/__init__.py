"""What the store promises of its speed, measured: `uv run python -m tests.benchmarks`."""
