"""Forms of the runners' pages, one of which also checks the parameters of an API route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from policystore.policy_language import scopes
from policystore.policy_language.action_inputs import Inputs
from policystore.policy_language.endpoint_parser import Entry, clean
from policystore.policy_language.values import SWITCH_FIELDS
from policystore.runners.explain import Job

SWITCH_CHOICES = [("", "not set"), ("true", "true"), ("false", "false")]
STEP_INPUTS = ("use_policy_store", "policy", "egress_policy", "allowed_endpoints", *SWITCH_FIELDS)


class BlocklistForm(forms.Form):
    """A destination to block, and the reason."""

    endpoint = forms.CharField(max_length=255, label="IPv4 address, domain or *.domain")
    reason = forms.CharField(max_length=200, label="Reason")


class ClusterForm(forms.Form):
    """The ARC cluster that Helm values are for; may be empty."""

    cluster = forms.CharField(max_length=253, required=False, label="Cluster")

    def clean_cluster(self) -> str:
        """Refuse invalid cluster names."""
        try:
            return scopes.cluster_name(self.cleaned_data["cluster"]) if self.cleaned_data["cluster"] else ""
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


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
                names = scopes.parse_job(self._owner, values["repository"], values["workflow"])
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
