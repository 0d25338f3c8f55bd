"""The Django application of detections."""

from django.apps import AppConfig


class DetectionsConfig(AppConfig):
    name = "policystore.detections"
