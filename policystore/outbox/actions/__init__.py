"""The only writers of integrations, messages and attempts."""

from policystore.outbox.actions.messages import tell

__all__ = ["tell"]
