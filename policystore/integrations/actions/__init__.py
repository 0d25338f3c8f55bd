"""The only writers of integrations, messages and attempts."""

from policystore.integrations.actions.messages import Happening, emit, emit_each

__all__ = ["Happening", "emit", "emit_each"]
