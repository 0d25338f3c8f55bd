"""Explains which policy applies to a job: the four levels, what is served, and what the action makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms

from policystore.inventory.models import Organization
from policystore.policies import break_glass
from policystore.policies.core import queries
from policystore.policies.models import Attachment, BreakGlass, CanaryScope, Policy
from policystore.policy_language.action_inputs import Inputs, Merged, merge
from policystore.policy_language.document import read_reply
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.endpoint_parser import Entry, clean
from policystore.policy_language.lint import remarks
from policystore.policy_language.scopes import PRECEDENCE, Scope, ScopeType, candidate_keys, parse_job
from policystore.policy_language.values import SWITCH_FIELDS
from policystore.runners.fetch import handler
from policystore.runners.fetch.query import ServedPolicy, UnservablePolicy, policy_by_name, policy_for_job
from policystore.runners.models import JobRun

SWITCH_CHOICES = [("", "not set"), ("true", "true"), ("false", "false")]
STEP_INPUTS = ("use_policy_store", "policy", "egress_policy", "allowed_endpoints", *SWITCH_FIELDS)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its runner would name it; a name is empty if the runner would not send it."""

    repository: str
    workflow: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Level:
    """One of the four levels: its scope (None if the job does not name it) and the policy attached there, if any."""

    type: ScopeType
    scope: Scope | None
    policy: Policy | None
    applies: bool
    break_glass: BreakGlass | None = None
    is_canary: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a job gets and why; `body` is the fetch's reply byte for byte, `merged` what the action makes of it."""

    levels: tuple[Level, ...]
    served: ServedPolicy
    status: int
    body: str
    merged: Merged
    endpoint: str = ""

    @property
    def remarks(self) -> list[str]:
        """Sentences on entries of the list that do something other than they seem to."""
        merged = self.merged
        telemetry = not merged.disable_telemetry
        return remarks(merged.allowed_endpoints, egress_policy=merged.egress_policy, telemetry=telemetry)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on a call to `endpoint`; None if there is no endpoint."""
        if not self.endpoint:
            return None
        allowed = AllowList.from_entries(self.merged.allowed_endpoints, telemetry=not self.merged.disable_telemetry)
        if self.merged.egress_policy != "block" or allowed.gives_up:
            return Verdict.ALLOWED
        return allowed.verdict_of(self.endpoint)

    @property
    def shadowed(self) -> list[Level]:
        """Less specific levels whose policy does not apply because another one does."""
        return [level for level in self.levels if level.policy is not None and not level.applies]

    @property
    def break_glass(self) -> BreakGlass | None:
        """The break glass that turns the policy's block into audit; of several, the one that lasts longest."""
        active = [level.break_glass for level in self.levels if level.break_glass is not None]
        return max(active, key=lambda break_glass: break_glass.ends_at) if active and self.served.break_glass else None

    @property
    def why(self) -> str:
        """One sentence on which level decides."""
        winner = next((level for level in self.levels if level.applies), None)
        if winner is None or winner.scope is None:
            return "No level has a policy, so the store answers 404 and the job runs in audit mode."
        if winner.type == ScopeType.WORKFLOW:
            return f"{self.served.policy_name} is attached to the workflow itself, the most specific level."
        return f"{self.served.policy_name} is attached to the {winner.type}; nothing more specific has a policy."


def explain(organization: Organization, job: Job, inputs: Inputs, *, endpoint: str = "") -> Explanation:
    """Resolve the job with the fetch's own SQL and explain the result, with the verdict on a call to `endpoint`.

    Raises DatabaseError, as the fetch's SQL does.
    """
    served = policy_for_job(organization.key, job.repository, job.workflow, job.cluster)
    reply = handler.reply_of(served)
    by_name = policy_by_name(organization.key, inputs.policy, job.repository, job.workflow)
    bodies = {"policy_store": served.reply, "policy": by_name.reply, "workflow": ""}
    body = bodies[inputs.asks]
    try:
        merged = merge(inputs, json.loads(body) if body else None)
    except (ValueError, TypeError, KeyError) as error:
        raise UnservablePolicy("A reply was changed in the database; run `manage.py verify_history`.") from error
    return Explanation(
        levels=_levels(organization, job, served),
        served=served,
        status=reply.status,
        body=reply.body.decode(),
        merged=merged,
        endpoint=endpoint,
    )


def _levels(organization: Organization, job: Job, served: ServedPolicy) -> tuple[Level, ...]:
    keys = candidate_keys(organization.key, job.repository, job.workflow, job.cluster)
    holders = queries.holders(organization, [key for key in keys if key])
    active = break_glass.active(organization).filter(scope_key__in=keys)
    break_glass_of = {break_glass.scope_key: break_glass for break_glass in active}
    canaries = set(
        CanaryScope.objects.filter(staged=served.policy_id, scope_key__in=keys).values_list("scope_key", flat=True)
    )
    return tuple(
        Level(
            type=scope_type,
            scope=Scope.from_key(key) if key else None,
            policy=holders[key].policy if key in holders else None,
            applies=bool(key) and key == served.scope_key,
            break_glass=break_glass_of.get(key),
            is_canary=key in canaries,
        )
        for scope_type, key in zip(PRECEDENCE, keys, strict=True)
    )


class ExplainForm(forms.Form):
    """A job of the organization `owner`, and the inputs of its Harden-Runner step, each named as the step names it."""

    repository = forms.CharField(max_length=255, required=False)
    workflow = forms.CharField(max_length=512, required=False, label="Workflow file")
    cluster = forms.CharField(max_length=255, required=False, label="ARC cluster")
    endpoint = forms.CharField(max_length=255, required=False, label="Endpoint, such as github.com:443 (optional)")
    use_policy_store = forms.ChoiceField(choices=SWITCH_CHOICES, required=False)
    policy = forms.CharField(max_length=200, required=False)
    egress_policy = forms.ChoiceField(choices=[("", "not set"), ("audit", "audit"), ("block", "block")], required=False)
    allowed_endpoints = forms.CharField(max_length=20_000, required=False, widget=forms.Textarea({"rows": 3}))
    disable_sudo = forms.ChoiceField(choices=SWITCH_CHOICES, required=False)
    disable_sudo_and_containers = forms.ChoiceField(choices=SWITCH_CHOICES, required=False)
    disable_file_monitoring = forms.ChoiceField(choices=SWITCH_CHOICES, required=False)
    disable_telemetry = forms.ChoiceField(choices=SWITCH_CHOICES, required=False)

    def __init__(self, data: Mapping[str, Any], *, owner: str) -> None:
        super().__init__(data)
        self._owner = owner

    def add_prefix(self, field_name: str) -> str:
        """Return the name in the query string and on the page, where the step's inputs have hyphens."""
        return field_name.replace("_", "-")

    def clean_endpoint(self) -> str:
        """Normalize the endpoint to `host:port`; it may be empty."""
        text = str(self.cleaned_data["endpoint"]).strip()
        endpoint, problems = clean(Entry(text, 1, 1)) if text else ("", [])
        if endpoint is None:
            raise forms.ValidationError(f"{problems[0].message} {problems[0].hint}".strip())
        if "*" in endpoint:
            raise forms.ValidationError("Enter one host, for example github.com:443.")
        return endpoint

    def clean(self) -> dict[str, Any]:
        """Reduce the repository and workflow to their names, however they were entered."""
        values = self.cleaned_data
        if "repository" in values and "workflow" in values:
            try:
                names = parse_job(self._owner, values["repository"], values["workflow"])
            except ValueError as error:
                self.add_error("workflow", str(error))
            else:
                values["repository"], values["workflow"] = names
        return values

    @property
    def job(self) -> Job:
        """The job that a valid form names."""
        values = self.cleaned_data
        return Job(repository=values["repository"], workflow=values["workflow"], cluster=values["cluster"])

    @property
    def inputs(self) -> Inputs:
        """The step's inputs. With neither `policy` nor `use-policy-store`, the step is taken to ask the store, because
        that is what the page is about."""
        values = self.cleaned_data
        asks_store = values["use_policy_store"] or ("false" if values["policy"] else "true")
        return Inputs(
            egress_policy=values["egress_policy"] or "block",
            allowed_endpoints=values["allowed_endpoints"],
            policy=values["policy"],
            use_policy_store=asks_store == "true",
            **{name: values[name] == "true" for name in SWITCH_FIELDS},
        )


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
