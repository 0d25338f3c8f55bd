"""The review of what a change does to policies, before a person agrees to it."""

from __future__ import annotations

from collections.abc import Sequence

from policystore.policies.compiler import Effect

EFFECTS_SHOWN = 200


def review_context(effects: Sequence[Effect]) -> dict[str, object]:
    """The template context that lists the effects; `agreed` has the ids of all the policies, for `AgreedForm`."""
    return {
        "agreed": ",".join(str(effect.policy_id) for effect in effects),
        "effects": effects[:EFFECTS_SHOWN],
        "effect_count": len(effects),
        "more_effects": max(len(effects) - EFFECTS_SHOWN, 0),
        "scope_count": sum(effect.attachment_count for effect in effects),
    }
