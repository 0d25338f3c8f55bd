"""What an enforcer does with a list, where a person meets it: saving, importing, impact, "which" and events."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Role
from policystore.policies import never_allow
from policystore.policies.core import attachments
from policystore.policies.models import EndpointSet, Policy, PolicyException
from policystore.policy_language.document import written_endpoints
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic.impact import bitmap_store
from policystore.traffic.verdicts import verdicts_for
from tests import factories
from tests.runners.asking import ask
from tests.traffic.test_impact import ran, words

pytestmark = pytest.mark.django_db

REPOSITORY = Scope.for_repository("octo-org", "hello-world")
TWO_STARS = "*.*.github.com:443"
MIRROR = ["mirror.octo.example:80", "*.octo.example:443"]
ENDS = "In block mode, “metadata.google.internal:80” makes the agent stop enforcing for the whole job"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    client = Client()
    person = factories.member(organization, Role.SECURITY_ADMIN)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def text(*entries, mode="block"):
    return f"egress-policy: {mode}\nallowed-endpoints:\n" + "".join(f"  - '{entry}'\n" for entry in entries)


def create(client, written):
    return client.post(reverse("policies:new", args=["octo-org"]), {"name": "draft", "text": written})


def edited_directly(policy, *entries):
    """A policy whose text and reply were changed in the database."""
    listed = ", ".join(f'"{entry}"' for entry in entries)
    reply = policy.reply.replace('"github.com:443","api.github.com:443"', listed)
    assert reply != policy.reply
    Policy.objects.filter(pk=policy.pk).update(text=text(*entries), reply=reply)
    policy.refresh_from_db()
    return policy


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (
            TWO_STARS,
            "has more than one *. The agent ignores what follows the second one, so it would allow every host.",
        ),
        ("metadata.google.internal:80", ENDS),
        ("10.0.0.1:443", "because it is an IP address"),
        ("127.1", "its last label is a number"),
        ("a.com:70000", "must be between 1 and 65535"),
        ("a.com:-1", "must be between 1 and 65535"),
        ("straße.de:443", "contains “ß” (U+00DF, LATIN SMALL LETTER SHARP S)"),
        ("${{ vars.HOST }}:443", "The store does not evaluate expressions."),
    ],
)
def test_an_entry_that_does_not_do_what_it_says_is_refused_wherever_it_comes_in(
    organization, ann, entry, told, tmp_path
):
    policy = factories.policy(organization, "ci", text=text("github.com:443"))
    refused = create(ann, text(entry))
    assert (refused.status_code, told in words(refused)) == (422, True)
    refused = ann.post(reverse("endpoint-sets:new", args=["octo-org"]), {"name": "draft", "text": f"{entry}\n"})
    assert (refused.status_code, told in words(refused)) == (422, True)
    form = {
        "endpoint": entry,
        "expires_at": f"{timezone.now() + timedelta(days=3):%Y-%m-%d}",
        "reason": "a move",
    }
    refused = ann.post(f"{reverse('policies:view', args=['octo-org', policy.pk])}exceptions/", form)
    assert refused.status_code == 422
    bearer = {"authorization": f"Bearer {factories.management_key(organization)}"}
    body = {"egress_policy": "block", "allowed_endpoints": [entry]}
    refused = ask("POST", "/v1/github/octo-org/actions/policies/draft", bearer, body)
    assert refused.status in (400, 422)
    call_command("export", tmp_path / "bundle")
    (tmp_path / "bundle/policies/ci/policy.yaml").write_text(text(entry))
    with pytest.raises(CommandError, match=r"policies/ci/policy.yaml:3:5"):
        call_command("apply", tmp_path / "bundle")
    assert [policy.text for policy in Policy.objects.all()] == [text("github.com:443")]
    assert not EndpointSet.objects.exists()
    assert not PolicyException.objects.exists()


def test_an_entry_that_ends_enforcement_is_a_warning_in_audit_until_the_policy_blocks(organization, ann):
    assert create(ann, text("metadata.google.internal:80", mode="audit")).status_code == 302
    policy = Policy.objects.get()
    form = {"name": "draft", "text": text("metadata.google.internal:80"), "version": 1}
    refused = ann.post(reverse("policies:edit", args=["octo-org", policy.pk]), form)
    assert (refused.status_code, ENDS in words(refused)) == (422, True)


def test_endpoints_without_a_mode_are_refused_and_an_exemption_is_saved(organization, ann):
    refused = create(ann, "allowed-endpoints: github.com\n")
    assert refused.status_code == 422
    assert "Harden-Runner action itself defaults to block. Add egress-policy: audit" in words(refused)
    assert create(ann, "lockdown-mode:\n  enabled: false\n").status_code == 302


@pytest.mark.parametrize("character", ["\u200b", "\u061c", "\u2060", "\u3164"])
def test_an_invisible_character_in_a_comment_is_refused(organization, ann, character):
    refused = create(ann, f"egress-policy: block # a{character}b\n")
    assert refused.status_code == 422
    assert f"U+{ord(character):04X} is invisible" in words(refused)


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("evil.example", "**.github.com:443"),
        ("s3.amazonaws.com", "s3.*.amazonaws.com:443"),
        ("*.evil.example", "github.*:443"),
        ("evil.example", "evil.ex*il.example:443"),
    ],
)
def test_a_pattern_that_matches_a_never_allow_host_is_not_saved(organization, ann, host, entry):
    never_allow.add(organization=organization, host=host, reason="exfiltration", by=SYSTEM)
    for mode in ("audit", "block"):
        assert create(ann, text(entry, mode=mode)).status_code == 422
    assert not Policy.objects.exists()


def impact(client, written):
    bitmap_store.catch_up()
    return words(client.post(reverse("impact:draft", args=["octo-org"]), {"text": written, "impact_days": "30"}))


def test_impact_counts_a_hidden_wildcard_as_blocked_and_names_what_is_left_to_chance(organization, ann):
    ran(organization, "mirror.octo.example:443", "mirror.octo.example:80")
    ran(organization, "x.b.a.com:443")
    page = impact(ann, text(*MIRROR, "*.a.com:443", "*.b.a.com:8080"))
    assert "Would block 1 of 2 job runs" in page
    assert "1 more is undetermined: wildcards with different ports match a host that it calls" in page
    undetermined = page.partition("Undetermined ")[2]
    assert "x.b.a.com:443" in undetermined
    assert "Would block none of 2 job runs" in impact(ann, text(*MIRROR, "mirror.octo.example:443", "*.a.com:443"))


def test_a_stored_text_is_judged_by_what_the_agent_does_with_it(organization, ann):
    policy = edited_directly(factories.policy(organization, "ci"), TWO_STARS)
    attachments.ModifyAttachments(policy=policy, add=[REPOSITORY]).apply(by=SYSTEM)
    asked = {"repository": "hello-world", "endpoint": "evil.com:443"}
    page = words(ann.get(reverse("which", args=["octo-org"]), asked))
    assert "A call to evil.com:443 is allowed" in page
    assert "“*.*.github.com:443” has more than one *" in page
    run = JobRun(organization=organization, policy_id=policy.pk, policy_version=policy.version, egress_policy="block")
    run.fetched_at = run.first_seen_at = timezone.now()
    assert verdicts_for(run).judge("connection", "evil.com", 443) == "allowed"
    ended = edited_directly(factories.policy(organization, "ended"), "metadata.google.internal:80")
    attachments.ModifyAttachments(policy=ended, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    page = words(ann.get(reverse("which", args=["octo-org"]), {"repository": "x", "endpoint": "evil.com"}))
    assert "makes the agent stop enforcing for the whole job: nothing is blocked" in page
    assert "A call to evil.com:443 is allowed" in page
    run.policy_id, run.policy_version = ended.pk, ended.version
    assert verdicts_for(run).judge("connection", "evil.com", 443) == "off_list"


def test_which_says_what_becomes_of_a_call(organization, ann):
    policy = factories.policy(organization, "ci", text=text(*MIRROR, "*.b.a.com:8080", "*.a.com:443"))
    attachments.ModifyAttachments(policy=policy, add=[REPOSITORY]).apply(by=SYSTEM)
    page = reverse("which", args=["octo-org"])
    for endpoint, told in (
        ("mirror.octo.example:443", "is blocked"),
        ("mirror.octo.example:80", "is allowed"),
        ("x.b.a.com", "is undetermined"),
        ("x.actions.githubusercontent.com", "is allowed"),
    ):
        shown = words(ann.get(page, {"repository": "hello-world", "endpoint": endpoint}))
        assert told in shown
        assert "“*.octo.example:443” does not apply to “mirror.octo.example”" in shown
    assert ann.get(page, {"repository": "hello-world", "endpoint": "https://x"}).status_code == 422
    key = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    route = "/v1/github/octo-org/hello-world/actions/policies/which?endpoint=x.b.a.com:443"
    assert ask("GET", route, key).json()["action"]["verdict"] == "undetermined"


def test_the_verdict_of_an_event_is_undetermined_where_the_agent_picks_a_port(organization):
    policy = factories.policy(organization, "ci", text=text(*MIRROR, "*.a.com:443", "*.b.a.com:8080"))
    run = JobRun(organization=organization, policy_id=policy.pk, policy_version=1, egress_policy="block")
    run.fetched_at = run.first_seen_at = timezone.now()
    verdicts = verdicts_for(run)
    assert verdicts.judge("connection", "x.b.a.com", 443) == "undetermined"
    assert verdicts.judge("dns", "x.b.a.com", 0) == "allowed"
    assert verdicts.judge("connection", "mirror.octo.example", 443) == "would_be_blocked"
    assert verdicts.judge("connection", "agent.api.stepsecurity.io", 443) == "allowed"
    assert verdicts.judge("connection", "10.1.2.3", 22) == "allowed"


def imported(client, written, chosen):
    """The page of an import from the organization's baseline, and the text after taking it with these wildcards."""
    form = {"source": "organization", "show": "1", "text": written, "version": "", "policy": ""}
    page = client.post(reverse("baseline:import", args=["octo-org"]), form)
    rows = [row.endpoint for row in page.context["rows"] if row.is_new]
    editor = client.post(reverse("policies:new", args=["octo-org"]), {"text": written, "add": ["", *rows, *chosen]})
    return page, editor.context["form"]["text"].value()


def test_an_import_never_hides_a_call_from_the_wildcard_that_covers_it(organization, ann):
    ran(organization, "mirror.octo1.org:80", "mirror.octo1.org:443", *(f"{name}.octo1.org:443" for name in "abc"))
    page, written = imported(ann, text("github.com:443"), ["*.octo1.org:443"])
    (suggestion,) = page.context["suggestions"]
    assert suggestion.covers == ("a.octo1.org:443", "b.octo1.org:443", "c.octo1.org:443")
    assert set(written_endpoints(written)) == {
        "github.com:443",
        "*.octo1.org:443",
        "mirror.octo1.org:80",
        "mirror.octo1.org:443",
    }
    assert "Would block none of 1 job run" in impact(ann, written)


def test_an_import_lists_what_a_wildcard_of_the_policy_covered_for_a_host_that_it_names(organization, ann):
    ran(organization, "mirror.octo1.org:80", "x.actions.githubusercontent.com:80")
    _, written = imported(ann, text("*.octo1.org:443"), [])
    assert "mirror.octo1.org:443" in written_endpoints(written)
    assert "x.actions.githubusercontent.com:443" in written_endpoints(written)


def test_a_wildcard_is_not_suggested_across_one_with_another_port(organization, ann):
    ran(organization, *(f"{name}.b.octo1.org:8080" for name in "abc"), *(f"{name}.octo1.org:443" for name in "abc"))
    page, _ = imported(ann, text("*.octo1.org:443"), [])
    assert page.context["suggestions"] == []


def test_a_store_under_its_own_name_that_a_blocking_policy_does_not_list_is_told(organization, ann, settings):
    settings.PUBLIC_URL = "https://store.octo.example"
    check = reverse("policies:check", args=["octo-org"])
    told = words(ann.post(check, {"text": text("github.com:443")}))
    assert "Jobs call this store at “store.octo.example:443”" in told
    assert "Add “store.octo.example:443”." in told
    for quiet in (text("github.com:443", mode="audit"), text("store.octo.example:443")):
        assert "Jobs call this store" not in words(ann.post(check, {"text": quiet}))
    settings.PUBLIC_URL = "https://agent.api.stepsecurity.io"
    assert "No problems" in words(ann.post(check, {"text": text("github.com:443")}))


@pytest.mark.parametrize("suffix", ["", "}"])
def test_a_reply_that_was_broken_in_the_database_breaks_no_page_and_the_history_still_judges(organization, ann, suffix):
    policy = factories.policy(organization, "ci")
    attachments.ModifyAttachments(policy=policy, add=[REPOSITORY]).apply(by=SYSTEM)
    run = JobRun(organization=organization, policy_id=policy.pk, policy_version=1, egress_policy="block")
    run.fetched_at = run.first_seen_at = timezone.now()
    Policy.objects.filter(pk=policy.pk).update(reply=policy.reply[:60] + suffix)
    assert verdicts_for(run).judge("connection", "github.com", 443) == "allowed"
    assert verdicts_for(run).judge("connection", "evil.com", 443) == "would_be_blocked"
    shown = ann.get(reverse("which", args=["octo-org"]), {"repository": "hello-world"})
    assert shown.status_code == 503
    assert "run manage.py verify_history" in words(shown).replace("`", "")
    key = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    assert ask("GET", "/v1/github/octo-org/hello-world/actions/policies/which", key).status == 503
