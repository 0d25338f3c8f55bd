"""Forms of the runners' pages."""

from __future__ import annotations

from django import forms

from policystore.policy_language import scopes
from policystore.policy_language.action_inputs import Inputs
from policystore.policy_language.endpoint_parser import Entry, clean

SWITCH = [("", "not set"), ("true", "true"), ("false", "false")]
SWITCHED = ("disable_sudo", "disable_sudo_and_containers", "disable_file_monitoring", "disable_telemetry")
STEP_INPUTS = ("use_policy_store", "policy", "egress_policy", "allowed_endpoints", *SWITCHED)


class BlocklistForm(forms.Form):
    """A destination that no job may reach, and why."""

    endpoint = forms.CharField(max_length=255, label="IPv4 address, domain or *.domain")
    reason = forms.CharField(max_length=200, label="Reason")


class ClusterForm(forms.Form):
    """The ARC cluster that Helm values are for; empty for values that name none."""

    cluster = forms.CharField(max_length=253, required=False, label="Cluster")

    def clean_cluster(self) -> str:
        """Refuse what cannot name a cluster."""
        try:
            return scopes.cluster_name(self.cleaned_data["cluster"]) if self.cleaned_data["cluster"] else ""
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


class WhichForm(forms.Form):
    """A job, and the inputs of the Harden-Runner step in its workflow, each named as the step names it."""

    repository = forms.CharField(max_length=255, required=False)
    workflow = forms.CharField(max_length=512, required=False, label="Workflow file")
    cluster = forms.CharField(max_length=255, required=False, label="ARC cluster")
    endpoint = forms.CharField(max_length=255, required=False, label="Endpoint, such as github.com:443 (optional)")
    use_policy_store = forms.ChoiceField(choices=SWITCH, required=False)
    policy = forms.CharField(max_length=200, required=False)
    egress_policy = forms.ChoiceField(choices=[("", "not set"), ("audit", "audit"), ("block", "block")], required=False)
    allowed_endpoints = forms.CharField(max_length=20_000, required=False, widget=forms.Textarea({"rows": 3}))
    disable_sudo = forms.ChoiceField(choices=SWITCH, required=False)
    disable_sudo_and_containers = forms.ChoiceField(choices=SWITCH, required=False)
    disable_file_monitoring = forms.ChoiceField(choices=SWITCH, required=False)
    disable_telemetry = forms.ChoiceField(choices=SWITCH, required=False)

    def add_prefix(self, field_name: str) -> str:
        """The name in the address and in the page: the step's inputs are written with hyphens."""
        return field_name.replace("_", "-")

    def clean_endpoint(self) -> str:
        """The endpoint as `host:port`; empty where none is given."""
        text = str(self.cleaned_data["endpoint"]).strip()
        endpoint, problems = clean(Entry(text, 1, 1)) if text else ("", [])
        if endpoint is None:
            raise forms.ValidationError(f"{problems[0].message} {problems[0].hint}".strip())
        if "*" in endpoint:
            raise forms.ValidationError("Enter one host, for example github.com:443.")
        return endpoint

    @property
    def inputs(self) -> Inputs:
        """The step's inputs. One that names neither a policy nor `use-policy-store` is taken to ask the store, since
        that is what the page is asked about."""
        values = self.cleaned_data
        asks_store = values["use_policy_store"] or ("false" if values["policy"] else "true")
        return Inputs(
            egress_policy=values["egress_policy"] or "block",
            allowed_endpoints=values["allowed_endpoints"],
            policy=values["policy"],
            use_policy_store=asks_store == "true",
            **{name: values[name] == "true" for name in SWITCHED},
        )
