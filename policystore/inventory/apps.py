from django.apps import AppConfig


class InventoryConfig(AppConfig):
    name = "policystore.inventory"
    label = "inventory"
