"""Forms of the policy pages. What a policy may be is decided by the actions; forms only carry text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.dateparse import parse_date, parse_datetime

from policystore.audit_log import event_types
from policystore.audit_log.export import FORMATS
from policystore.audit_log.hash_chain import LEDGERS
from policystore.audit_log.models import HistoryEvent
from policystore.audit_log.timeline import HistoryFilter
from policystore.inventory.models import Organization
from policystore.policies.break_glass import LEAST_HOURS, MOST_HOURS
from policystore.policies.compiler import PoliciesWouldChange
from policystore.policies.models import Policy
from policystore.policy_language import values
from policystore.policy_language.scopes import ScopeType
from policystore.web import pagination

NO_VERSION = "Not saved: the version that you started from is missing. Open the page again and save your text there."
EFFECTS_SHOWN = 200


def sent_text(data: Mapping[str, Any], name: str) -> str:
    """A text with the line ends that it had in the editor; the HTML standard makes browsers send CRLF."""
    return str(data.get(name) or "").replace("\r\n", "\n")


class RawTextarea(forms.Textarea):
    """Keeps the text as it was written."""

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> str:
        """The text that was sent."""
        return sent_text(data, name)


class RawTextField(forms.CharField):
    """Text that is kept byte for byte."""

    widget = RawTextarea

    def __init__(self, **options: object) -> None:
        super().__init__(strip=False, **options)  # type: ignore[arg-type]


def _hidden_number(*, min_value: int = 0, max_value: int = 2**31 - 1, **options: Any) -> forms.IntegerField:
    return forms.IntegerField(
        required=False, widget=forms.HiddenInput, min_value=min_value, max_value=max_value, **options
    )


class PolicyForm(forms.Form):
    """Name, description and text of a policy, and the version that the person started from."""

    # The action checks their limits, so that each limit exists once.
    name = forms.CharField(required=False, label="Policy name")
    description = forms.CharField(required=False)
    text = RawTextField(required=False, label="Policy", max_length=1_000_000)
    version = _hidden_number(error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), NO_VERSION))

    def content(self) -> dict[str, Any]:
        """Name, description and text of a valid form."""
        return {name: self.cleaned_data[name] for name in ("name", "description", "text")}


class AgreedForm(forms.Form):
    """The ids, with commas, of the policies that a person has agreed to change."""

    agreed = forms.CharField(required=False, widget=forms.HiddenInput)

    @property
    def is_confirmed(self) -> bool:
        """True if the person has agreed to what the review showed."""
        return "confirm" in self.data

    def clean_agreed(self) -> list[int]:
        """The ids as numbers, and none before the review is confirmed; what is not an id is left out."""
        words = str(self.cleaned_data["agreed"]).split(",") if self.is_confirmed else []
        return [policy_id for policy_id in map(pagination.parse_row_id, words) if policy_id is not None]

    def review(self, would_change: PoliciesWouldChange) -> tuple[dict[str, Any], int]:
        """The template context that lists what the change does to policies, before a person agrees to it; and the
        status. `agreed` has the ids of all the policies, for the next form. If the person has agreed to something else
        before, `refusal` says so."""
        effects = would_change.effects
        context = {
            "agreed": ",".join(str(effect.policy_id) for effect in effects),
            "effects": effects[:EFFECTS_SHOWN],
            "effect_count": len(effects),
            "more_effects": max(len(effects) - EFFECTS_SHOWN, 0),
            "scope_count": sum(effect.attachment_count for effect in effects),
            "refusal": str(would_change) if self.is_confirmed else "",
        }
        return context, 409 if self.is_confirmed else 200


class EndpointSetForm(PolicyForm, AgreedForm):
    """Name, description, text and version of an endpoint set, and the policies that may change with it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["name"].label, self.fields["text"].label = "Name", "Endpoints"


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

    version = _hidden_number()
    with_name = forms.BooleanField(required=False)


class BreakGlassForm(forms.Form):
    """A scope, for how many hours, and why."""

    type = forms.ChoiceField(choices=[(kind.value, kind.label) for kind in ScopeType], label="Scope type")
    name = forms.CharField(required=False, max_length=1100)
    hours = forms.IntegerField(initial=4, label="Hours", min_value=LEAST_HOURS, max_value=MOST_HOURS)
    reason = forms.CharField(max_length=500, label="Reason")


class ExceptionForm(forms.Form):
    """An endpoint, until when it is allowed, why, and who answers for it."""

    endpoint = forms.CharField(max_length=300)
    expires_at = forms.CharField(max_length=40)
    reason = forms.CharField(max_length=500)
    owner = forms.CharField(max_length=255, required=False)

    def clean_expires_at(self) -> datetime | None:
        """The time, in UTC if it has no offset; a day means its end."""
        return TimestampField(ends=True).clean(self.cleaned_data["expires_at"])


class TimestampField(forms.CharField):
    """A day, or a time (UTC if it has no offset); with `ends`, a day means its end."""

    def __init__(self, *, ends: bool = False, **options: Any) -> None:
        self.ends = ends
        super().__init__(required=False, max_length=40, **options)

    def clean(self, value: Any) -> datetime | None:
        """The time, or None. Raises ValidationError."""
        text = super().clean(value)
        try:
            day = parse_date(text)
            parsed = parse_datetime(text) if day is None else None
            if day is not None:
                return datetime.combine(day, time(), UTC) + timedelta(days=1 if self.ends else 0)
            if parsed is not None:
                parsed = values.in_utc(parsed)
        except (ValueError, OverflowError):
            parsed = None
        if parsed is None and text:
            raise ValidationError("Enter a day such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z.")
        return parsed


def _kinds() -> list[tuple[str, str]]:
    known = event_types.EVENT_TYPES.values()
    return [("", "Every event"), *((event_type.kind, event_type.label) for event_type in known)]


class HistoryFilterForm(forms.Form):
    """The history filters; `without` names fields that a page does not have."""

    person = forms.CharField(required=False, max_length=255)
    policy = forms.CharField(required=False, max_length=255)
    scope = forms.CharField(required=False, max_length=1100)
    kind = forms.ChoiceField(required=False, label="Event", choices=_kinds)

    def __init__(self, *args: Any, without: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["from"] = TimestampField(label="From")
        self.fields["to"] = TimestampField(label="To", ends=True)
        for name in without:
            del self.fields[name]

    def is_narrowed(self) -> bool:
        """True if any filter is set."""
        return any(self.data.get(name) for name in self.fields)

    def wanted(self, organization: Organization, *, subject: tuple[str, int] | None = None) -> HistoryFilter:
        """The filter, once the form is valid; `subject` limits it to one policy or endpoint set."""
        written = self.cleaned_data
        name = written.get("policy", "")
        now = Policy.objects.filter(organization=organization, name_key=name.lower()) if name else Policy.objects.none()
        return HistoryFilter(
            person=written.get("person", "").lstrip("@"),
            policy=name,
            policy_id=now.values_list("pk", flat=True).first(),
            subject=subject,
            scope=re.sub(r"\s*/\s*", "/", written.get("scope", "")),
            kind=written.get("kind", ""),
            since=written.get("from"),
            until=written.get("to"),
        )


class ExportForm(HistoryFilterForm):
    """The filters, format and ledger of an export; all ledgers if none is given."""

    subject_type = forms.ChoiceField(required=False, choices=HistoryEvent.SubjectType.choices)
    subject_id = forms.IntegerField(required=False, min_value=1, max_value=pagination.MAX_ROW_ID)
    format = forms.ChoiceField(required=False, choices=[(name, name) for name in FORMATS])
    of = forms.ChoiceField(required=False, choices=[(ledger.name, ledger.name) for ledger in LEDGERS])

    def clean(self) -> dict[str, Any]:
        """An id alone is that of a policy."""
        written: dict[str, Any] = super().clean() or self.cleaned_data
        if written.get("subject_type") and not written.get("subject_id"):
            self.add_error("subject_id", "Enter the id of the subject that subject_type describes.")
        return written

    def chosen(self, organization: Organization) -> HistoryFilter:
        """The filter, once the form is valid."""
        subject_id = self.cleaned_data["subject_id"]
        subject_type = self.cleaned_data["subject_type"] or HistoryEvent.SubjectType.POLICY
        return self.wanted(organization, subject=(subject_type, subject_id) if subject_id else None)


class StageForm(forms.Form):
    """A text to stage, the live version that its author saw, and the staged version in whose place it comes, if any."""

    text = RawTextField(required=False, label="Staged version", max_length=1_000_000)
    version = _hidden_number()
    event = _hidden_number(min_value=1, max_value=pagination.MAX_ROW_ID)


class CanariesForm(forms.Form):
    """One more canary scope, for the staged version that the person saw."""

    event = _hidden_number(min_value=1, max_value=pagination.MAX_ROW_ID)
    type = forms.ChoiceField(choices=[(kind.value, kind.label) for kind in ScopeType], required=False)
    name = forms.CharField(max_length=1100, required=False)
