"""Telemetry in, and pages of what was observed."""
