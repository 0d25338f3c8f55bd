from django.apps import AppConfig


class RunnersConfig(AppConfig):
    name = "policystore.runners"
    label = "runners"
