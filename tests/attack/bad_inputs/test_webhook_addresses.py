"""Addresses and settings that no integration can have; what was typed stays in the form, secrets do not."""

import pytest

from tests.attack.bad_inputs.asking import OWN, Bad, check, rows, world

pytestmark = pytest.mark.django_db
INTEGRATIONS = f"{OWN}settings/integrations/"
ADDRESS = "https://hooks.example.com/store"
SPACES = "Enter an address without spaces, of at most 2,000 characters."
NO_ADDRESS = "This is not a valid address. Enter one such as https://hooks.example.com/store."
WHOLE = "Enter the whole address, including https://."
NO_USER = "Leave the user name and password out of the address; send them in a header."


def webhook(case, told, **changed):
    form = {"name": "siem", "events": "detection", "address": ADDRESS, "method": "POST", "raw": "False", **changed}
    form = {name: value for name, value in form.items() if value is not None}
    return Bad(f"webhook: {case}", 422, told, f"{INTEGRATIONS}new/webhook/", form, kept=("name", "address"))


def slack(case, told, **changed):
    form = {"name": "sec", "events": "detection", **changed}
    return Bad(f"slack: {case}", 422, told, f"{INTEGRATIONS}new/slack/", form, kept=("name",))


def s3(case, told, **changed):
    form = {"name": "archive", "events": "detection", "bucket": "audit-log", "region": "eu-central-1"}
    form |= {"access_key_id": "id", "secret_access_key": "key", **changed}
    return Bad(f"s3: {case}", 422, told, f"{INTEGRATIONS}new/s3/", form, kept=("name", "bucket", "region"))


CASES = [
    webhook("no address", "This field is required.", address=""),
    webhook("no scheme", WHOLE, address="hooks.example.com/store"),
    webhook("another scheme", WHOLE, address="ftp://hooks.example.com/"),
    webhook("a file", WHOLE, address="file:///etc/passwd"),
    webhook("a script", WHOLE, address="javascript:alert(1)"),
    webhook("no host", WHOLE, address="https:///store"),
    webhook("a user", NO_USER, address="https://user:word@hooks.example.com/"),
    webhook("a host as user", NO_USER, address="https://hooks.example.com@127.0.0.1/"),
    webhook("a backslash", SPACES, address="https://hooks.example.com\\@127.0.0.1/"),
    webhook("a space", SPACES, address="https://hooks.example.com/a b"),
    webhook("a line break", SPACES, address="https://hooks.example.com/\r\nHost: other"),
    webhook("port 0", "0 is not a valid port.", address="https://hooks.example.com:0/"),
    webhook("port 65536", NO_ADDRESS, address="https://hooks.example.com:65536/"),
    webhook("an open bracket", NO_ADDRESS, address="https://[::1/"),
    webhook("two dots", NO_ADDRESS, address="https://hooks..example.com/"),
    webhook(
        "a path with an umlaut",
        "Percent-encode the path of the address, so that it is all ASCII.",
        address="https://hooks.example.com/ä",
    ),
    webhook(
        "too long",
        "Ensure this value has at most 2000 characters (it has 2026).",
        address=f"https://hooks.example.com/{'a' * 2000}",
    ),
    webhook("no events", "Choose at least one event.", events=None),
    webhook("an unknown event", "is not one of the available choices.", events="everything"),
    webhook("an unknown method", "is not one of the available choices.", method="TRACE"),
    webhook(
        "a header without a colon",
        "“Authorization Bearer” is not a valid header. Enter each header as Name: value, in ASCII.",
        headers="Authorization Bearer",
    ),
    webhook("the store's own header", "The header Webhook-Id is set by the store itself.", headers="Webhook-Id: 1"),
    slack("nothing to send by", "Enter an incoming webhook, or a bot's token and channel."),
    slack("both ways", "Use the incoming webhook or the bot, not both.", webhook_url=ADDRESS, bot_token="xoxb-1"),
    slack("a bot without a channel", "Name the channel that the bot writes to.", bot_token="xoxb-1"),
    slack("an address that is none", WHOLE, webhook_url="hooks.slack.example"),
    s3("a bad bucket", "A bucket's name has 3 to 63 lower-case letters, digits, dots and -.", bucket="Audit Log"),
    s3("a bad region", "Enter a region such as eu-central-1.", region="Frankfurt!"),
    s3("a bad prefix", "Use letters, digits, / and - _ . only.", key_prefix="a b"),
    s3("no secret", "This field is required.", secret_access_key=""),
]


@rows(CASES)
def test_it_is_told_what_is_wrong_with_it(bad):
    check(world(), bad)
