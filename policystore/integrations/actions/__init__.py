"""The only writers of integrations, messages and attempts."""

from policystore.integrations.actions.messages import Event, emit, emit_all

__all__ = ["Event", "emit", "emit_all"]
