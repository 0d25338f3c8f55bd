from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    """Policies, and every change to them."""

    name = "policystore.policies"
    label = "policies"
