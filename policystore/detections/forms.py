"""Forms of the pages of detections."""

from __future__ import annotations

from django import forms

from policystore.detections.models import Detection


class StatusForm(forms.Form):
    """A detection's new status; suppressing goes by rules."""

    status = forms.ChoiceField(choices=[(s.value, s.label) for s in (Detection.Status.NEW, Detection.Status.RESOLVED)])


class RuleForm(forms.Form):
    """What a suppression rule fits, and why."""

    detection_id = forms.CharField(max_length=100, required=False, label="Detection id")
    scope_key = forms.CharField(max_length=1100, required=False, label="Scope")
    destination = forms.CharField(max_length=255, required=False, label="Destination (* for any characters)")
    process = forms.CharField(max_length=255, required=False, label="Process")
    reason = forms.CharField(max_length=500, label="Reason")
