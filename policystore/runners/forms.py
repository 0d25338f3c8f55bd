"""Forms of the runners' settings pages."""

from __future__ import annotations

from django import forms


class BlocklistForm(forms.Form):
    """A destination that no job may reach, and why."""

    endpoint = forms.CharField(max_length=255, label="IP address, domain or *.domain")
    reason = forms.CharField(max_length=200, label="Reason")
