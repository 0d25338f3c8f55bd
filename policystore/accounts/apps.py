from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "policystore.accounts"
    label = "accounts"
