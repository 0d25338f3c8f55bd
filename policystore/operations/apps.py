from django.apps import AppConfig


class OperationsConfig(AppConfig):
    """Starting, serving and looking after a store."""

    name = "policystore.operations"
    label = "operations"
