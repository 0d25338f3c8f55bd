"""The only writers of integrations, messages and attempts."""

from policystore.integrations.actions.messages import Happening, tell, tell_each

__all__ = ["Happening", "tell", "tell_each"]
