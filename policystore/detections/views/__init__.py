"""Telemetry in, and the pages of detections."""
