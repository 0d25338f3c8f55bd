"""Forms of the settings pages."""

from __future__ import annotations

from django import forms

from policystore.accounts.models import KeyKind, KeySlot
from policystore.accounts.roles import Role
from policystore.web import pagination


class SlotForm(forms.Form):
    """Which runner key to regenerate, whether the person has been asked, and about which key (its id)."""

    kind = forms.ChoiceField(choices=[(kind.value, kind.label) for kind in (KeyKind.VM, KeyKind.ARC)])
    slot = forms.ChoiceField(choices=KeySlot.choices)
    confirmed = forms.BooleanField(required=False)
    replacing = forms.IntegerField(required=False, min_value=0, max_value=pagination.MAX_ROW_ID)


class KeyClustersForm(forms.Form):
    """The clusters that an ARC key is limited to, separated by spaces, commas or new lines; empty for no limit."""

    clusters = forms.CharField(
        max_length=30_000,
        required=False,
        label="Clusters, one per line",
        widget=forms.Textarea({"rows": 4, "placeholder": "prod-k8s", "autocomplete": "off", "spellcheck": "false"}),
    )

    def clean_clusters(self) -> list[str]:
        """Split the names."""
        return str(self.cleaned_data["clusters"]).replace(",", " ").split()


class ManagementKeyForm(forms.Form):
    """The person or system that a management key is for; the history names it."""

    name = forms.CharField(max_length=100, label="For whom")


class MemberForm(forms.Form):
    """A person to add, by GitHub login."""

    username = forms.CharField(max_length=40, label="GitHub login")
    role = forms.ChoiceField(choices=Role.choices, initial=Role.AUDITOR)


class RoleForm(forms.Form):
    """The role to give to a member, or to a former member who is added again."""

    role = forms.ChoiceField(choices=Role.choices)


class InventoryForm(forms.Form):
    """A repository, a workflow or a cluster to add to the inventory."""

    repository = forms.CharField(max_length=255, required=False)
    workflow = forms.CharField(max_length=512, required=False, label="Workflow file")
    cluster = forms.CharField(max_length=255, required=False, label="ARC cluster")

    def clean(self) -> dict[str, str]:
        """Refuse an empty form, and a workflow of no repository."""
        values: dict[str, str] = super().clean() or {}
        if values.get("workflow") and not values.get("repository"):
            self.add_error("repository", "Name the repository that has this workflow.")
        elif not any(values.values()):
            self.add_error("repository", "Name a repository or a cluster.")
        return values
