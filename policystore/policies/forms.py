"""Forms of the policy pages. What a policy may be is decided by the actions; forms only carry text."""

from __future__ import annotations

from typing import Any

from django import forms

from policystore.documents.scopes import ScopeType
from policystore.policies.actions.break_glass import LEAST_HOURS, MOST_HOURS


class RawTextarea(forms.Textarea):
    """Keeps the text as the browser sent it."""


class RawTextField(forms.CharField):
    """Text that is kept byte for byte, apart from the line ends that browsers put into every form."""

    widget = RawTextarea

    def __init__(self, **options: object) -> None:
        super().__init__(strip=False, **options)  # type: ignore[arg-type]

    def to_python(self, value: object) -> str:
        """Undo the CRLF that the HTML standard makes browsers send, unless the text is meant to have it."""
        return str(value or "").replace("\r\n", "\n")


class PolicyForm(forms.Form):
    """Name, description and text of a policy, and the version that the person started from."""

    name = forms.CharField(max_length=200, required=False, label="Policy name")
    description = forms.CharField(max_length=2000, required=False)
    text = RawTextField(required=False, label="Policy", max_length=1_000_000)
    version = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1, widget=forms.HiddenInput)


class AgreedForm(forms.Form):
    """The ids, with commas, of the policies that a person has agreed to change."""

    agreed = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean_agreed(self) -> list[int]:
        """The ids as numbers; what is none is left out."""
        words = str(self.cleaned_data["agreed"]).split(",")
        return [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) < 19]


class EndpointSetForm(PolicyForm, AgreedForm):
    """Name, description, text and version of an endpoint set, and the policies that may change with it."""


class NeverAllowForm(AgreedForm):
    """A host that no policy may allow, why, and the policies that may change with it."""

    host = forms.CharField(max_length=300, required=False, label="Host or *.host")
    reason = forms.CharField(max_length=300, required=False, label="Reason")


class DeleteForm(forms.Form):
    """The policy's name, typed."""

    name = forms.CharField(required=False, max_length=200, label="Policy name")


class CompareForm(forms.Form):
    """The numbers of two versions, `from` and `to`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, label in (("from", "From version"), ("to", "To version")):
            self.fields[name] = forms.IntegerField(min_value=1, max_value=2**31 - 1, label=label)


class RestoreForm(forms.Form):
    """The version that the person saw as the current one, and whether name and description come back too."""

    version = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1, widget=forms.HiddenInput)
    with_name = forms.BooleanField(required=False)


class BreakGlassForm(forms.Form):
    """A scope, for how many hours, and why."""

    type = forms.ChoiceField(choices=[(kind.value, kind.label) for kind in ScopeType], label="Scope type")
    name = forms.CharField(required=False, max_length=1100)
    hours = forms.IntegerField(initial=4, label="Hours", min_value=LEAST_HOURS, max_value=MOST_HOURS)
    reason = forms.CharField(max_length=500, label="Reason")
