"""Lockdown exemptions: a policy on a narrower scope switches off the lockdown of a wider one."""

from __future__ import annotations

from policystore.policies.models import Attachment, Policy
from policystore.policy_language.document import read_reply
from policystore.policy_language.scopes import candidate_keys
from policystore.runners.models import JobRun


def exempted_from(run: JobRun) -> Policy | None:
    """The policy of a wider scope whose lockdown does not apply to this job, since its own policy switches it off.

    Judged by the current attachments, since a runner only gets one policy.
    """
    keys = candidate_keys(run.organization.key, run.repository, run.workflow, run.cluster)
    rows = Attachment.objects.filter(organization=run.organization_id, scope_key__in=[key for key in keys if key])
    holders = {row.scope_key: row.policy for row in rows.select_related("policy")}
    ordered = [holders[key] for key in keys if key in holders]
    if len(ordered) < 2 or _lockdown(ordered[0]) is not False:
        return None
    return next((policy for policy in ordered[1:] if _lockdown(policy)), None)


def _lockdown(policy: Policy) -> bool | None:
    """True if the policy switches lockdown on, False if off, None if it does not mention lockdown.

    What was edited in the database and is not a lockdown counts as none.
    """
    lockdown = read_reply(policy.reply).get("lockdown")
    return bool(lockdown.get("enabled")) if isinstance(lockdown, dict) else None
