"""The Django application of observed traffic."""

from django.apps import AppConfig


class TrafficConfig(AppConfig):
    name = "policystore.traffic"
