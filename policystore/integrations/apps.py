from django.apps import AppConfig


class IntegrationsConfig(AppConfig):
    """Tells other systems what happened."""

    name = "policystore.integrations"
    verbose_name = "Integrations"
