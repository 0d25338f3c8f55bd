from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """Tells other systems what happened."""

    name = "policystore.outbox"
    label = "outbox"
    verbose_name = "Outbox"
