"""The API for systems with a management key: policies by name, baselines, detections, and the OpenAPI description."""
