"""Forms of integrations, one for each kind. Secrets are never shown; a field that is left empty keeps its secret."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django import forms
from django.core.validators import RegexValidator

from policystore.integrations import event_catalog, http_client
from policystore.integrations.models import S3, SLACK, WEBHOOK, Integration

METHODS = ("POST", "PUT", "PATCH")
MAX_HEADERS = 20
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{1,2000}")
# Headers that the store itself sets.
_OWN_HEADERS = frozenset(
    {"host", "connection", "content-length", "content-type", "transfer-encoding", "expect", "te", "trailer", "upgrade"}
)
_TOKEN = RegexValidator(r"\A[\x21-\x7e]+\Z", "A token has no spaces in it.")
_BUCKET = RegexValidator(
    r"\A[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z", "A bucket's name has 3 to 63 lower-case letters, digits, dots and -."
)
_REGION = RegexValidator(r"\A[a-z0-9-]{2,40}\Z", "Enter a region such as eu-central-1.")
# Nothing that needs escaping somewhere.
_PREFIX = RegexValidator(r"\A[A-Za-z0-9!_.*'()/-]*\Z", "Use letters, digits, / and - _ . only.")


def _secret(label: str, help_text: str = "", *validators: Callable[[str], None]) -> forms.CharField:
    # A password field is never sent back filled in.
    widget = forms.PasswordInput(attrs={"autocomplete": "off"})
    return forms.CharField(
        label=label, required=False, max_length=2000, widget=widget, help_text=help_text, validators=validators
    )


def _check_address(url: str) -> None:
    """Refuse an invalid address; the IP addresses behind it are checked at each send."""
    try:
        http_client.parse_url(url)
    except http_client.AddressRefused as refusal:
        raise forms.ValidationError(str(refusal)) from refusal


class IntegrationForm(forms.Form):
    """The fields that every kind has: a name, and the events to receive."""

    name = forms.CharField(max_length=100, label="Name")
    events = forms.MultipleChoiceField(
        choices=event_catalog.CHOICES,
        label="Events",
        widget=forms.CheckboxSelectMultiple,
        initial=[event_catalog.DETECTION, event_catalog.LOCKDOWN],
        error_messages={"required": "Choose at least one event."},
    )
    # Fields that are not part of the stored configuration, because they hold secrets or change them.
    secret_fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, integration: Integration | None = None, **kwargs: Any) -> None:
        self.integration = integration
        if integration:
            kwargs["initial"] = {**integration.config, "name": integration.name, "events": integration.events}
        super().__init__(*args, **kwargs)

    @property
    def own_fields(self) -> list[forms.BoundField]:
        """The fields of this kind alone."""
        return [field for field in self if field.name not in IntegrationForm.base_fields]

    def given(self) -> dict[str, Any]:
        """The arguments of `actions.create` and `actions.update` that come from the form."""
        values = self.cleaned_data
        return {"name": values["name"], "events": values["events"], "config": self.config(), "secrets": self.secrets()}

    def config(self) -> dict[str, Any]:
        """Return the configuration without secrets."""
        left_out = {*self.secret_fields, *IntegrationForm.base_fields}
        return {name: value for name, value in self.cleaned_data.items() if name not in left_out}

    def secrets(self) -> dict[str, Any]:
        """The secrets that were entered, without those left empty."""
        return {name: self.cleaned_data[name] for name in self.secret_fields if self.cleaned_data.get(name)}


class WebhookForm(IntegrationForm):
    """An address, and how it is called."""

    address = forms.CharField(label="Address", max_length=http_client.MAX_URL_LENGTH, validators=[_check_address])
    method = forms.ChoiceField(choices=[(method, method) for method in METHODS], label="Method")
    raw = forms.TypedChoiceField(
        label="Body",
        choices=[("False", "Enveloped: id, type, timestamp, organization, data"), ("True", "Raw: the data alone")],
        coerce=lambda value: value == "True",
        initial="False",
    )
    headers = forms.CharField(
        label="Headers",
        required=False,
        max_length=20_000,
        help_text="One per line, as Name: value. They are stored encrypted and not shown again.",
        widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
    )
    drop_headers = forms.BooleanField(label="Remove the stored headers", required=False)
    secret_fields = ("headers", "drop_headers")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.integration is None:
            del self.fields["drop_headers"]

    def clean_headers(self) -> dict[str, str]:
        """Parse the lines."""
        lines = [line.strip() for line in self.cleaned_data["headers"].splitlines() if line.strip()]
        if len(lines) > MAX_HEADERS:
            raise forms.ValidationError(f"At most {MAX_HEADERS} headers can be sent.")
        return dict(_header(line) for line in lines)

    def secrets(self) -> dict[str, Any]:
        """The headers that were entered, if any."""
        if self.cleaned_data["headers"]:
            return {"headers": self.cleaned_data["headers"]}
        return {"headers": {}} if self.cleaned_data.get("drop_headers") else {}


def _header(line: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in line.partition(":"))
    if not colon or not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
        # The line may hold a secret, so only its name is repeated.
        problem = f"“{name[:40]}” is not a valid header."
        raise forms.ValidationError(f"{problem} Enter each header as Name: value, in ASCII.")
    if name.lower() in _OWN_HEADERS or name.lower().startswith("webhook-"):
        raise forms.ValidationError(f"The header {name} is set by the store itself.")
    return name, value


class SlackForm(IntegrationForm):
    """An incoming webhook's address; or a bot's token and the channel it writes to."""

    webhook_url = _secret("Incoming webhook", "Its address, as Slack shows it; or use a bot.", _check_address)
    bot_token = _secret("Bot token", "It begins with xoxb- and needs the scope chat:write.", _TOKEN)
    channel = forms.CharField(
        label="Channel of the bot", required=False, max_length=100, help_text="Its id, such as C0123456789, or #name."
    )
    secret_fields = ("webhook_url", "bot_token")

    def clean(self) -> dict[str, Any]:
        """Accept an incoming webhook or a bot, not both."""
        values = super().clean() or {}
        webhook, token = values.get("webhook_url"), values.get("bot_token")
        if webhook and token:
            self.add_error("bot_token", "Use the incoming webhook or the bot, not both.")
        elif token and not values.get("channel"):
            self.add_error("channel", "Name the channel that the bot writes to.")
        elif webhook and values.get("channel"):
            self.add_error("channel", "An incoming webhook has its own channel; leave this empty.")
        elif self.integration is None and not self.errors and not webhook and not token:
            self.add_error("webhook_url", "Enter an incoming webhook, or a bot's token and channel.")
        elif self.integration and not webhook and not token:
            self._keep_kind(values)
        return values

    def _keep_kind(self, values: dict[str, Any]) -> None:
        had_channel = bool(self.integration and self.integration.config.get("channel"))
        if had_channel and not values.get("channel"):
            self.add_error("channel", "Name the channel that the bot writes to.")
        elif values.get("channel") and not had_channel:
            self.add_error("bot_token", "A channel needs a bot's token.")

    def secrets(self) -> dict[str, Any]:
        """The new webhook or token; the one that it replaces becomes empty."""
        written = super().secrets()
        return {name: written.get(name, "") for name in self.secret_fields} if written else {}


def _amazon(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com"


class S3Form(IntegrationForm):
    """A bucket and an access key that may write to it."""

    bucket = forms.CharField(label="Bucket", max_length=63, validators=[_BUCKET])
    region = forms.CharField(label="Region", max_length=40, initial="us-east-1", validators=[_REGION])
    endpoint = forms.CharField(
        label="Endpoint",
        required=False,
        max_length=500,
        help_text="The address of a compatible store; empty for Amazon S3.",
        validators=[_check_address],
    )
    key_prefix = forms.CharField(
        label="Prefix", required=False, max_length=200, help_text="In front of year/month/day.", validators=[_PREFIX]
    )
    access_key_id = _secret("Access key id")
    secret_access_key = _secret("Secret access key")
    secret_fields = ("access_key_id", "secret_access_key")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.secret_fields:
            # A saved integration has its keys already.
            self.fields[name].required = self.integration is None
        if self.initial.get("endpoint") == _amazon(self.initial.get("region", "")):
            # So that it follows the region.
            self.initial["endpoint"] = ""

    def clean_key_prefix(self) -> str:
        """Take the slashes off both ends."""
        return str(self.cleaned_data["key_prefix"]).strip("/")

    def clean(self) -> dict[str, Any]:
        """Fill in Amazon's own address."""
        values = super().clean() or {}
        if not values.get("endpoint") and values.get("region") and "endpoint" not in self.errors:
            values["endpoint"] = _amazon(values["region"])
        return values


FORMS: dict[str, type[IntegrationForm]] = {WEBHOOK: WebhookForm, SLACK: SlackForm, S3: S3Form}
