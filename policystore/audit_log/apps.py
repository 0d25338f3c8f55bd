from django.apps import AppConfig


class AuditLogConfig(AppConfig):
    """The history of every change, chained by hashes, and what verifies and exports it."""

    name = "policystore.audit_log"
    label = "audit_log"
