from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    name = "policystore.policies"
    label = "policies"
