"""Impact: what the pages tell before a draft or a change of scopes is saved."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import SYSTEM
from policystore.accounts.roles import Role
from policystore.detections import actions
from policystore.policies import endpoint_sets, exceptions, never_allow
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import ChangeRequest, Policy
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic.event_parser import parse
from policystore.traffic.impact import bitmap_store, preview
from policystore.traffic.models import BitmapProgress
from tests import factories

pytestmark = pytest.mark.django_db

FRAGMENT = {"HX-Request": "true"}
REPOSITORY = Scope.for_repository("octo-org", "hello-world")
WORKFLOW = Scope.for_workflow("octo-org", "hello-world", "release.yml")
ORGANIZATION = Scope.for_organization("octo-org")
CLUSTER = Scope.for_cluster("octo-org", "k8s")


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    client = Client()
    person = factories.member(organization, Role.SECURITY_ADMIN)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def ran(organization, *hosts, repository="hello-world", workflow="ci.yml", cluster="", days=1, times=1):
    """Job runs that called these hosts."""
    for _ in range(times):
        number = JobRun.objects.count()
        at = timezone.now() - timedelta(days=days)
        run = JobRun.objects.create(
            verified_by="key",
            organization=organization,
            repository=repository,
            workflow=workflow,
            cluster=cluster,
            job="build",
            run_id=str(number),
            correlation_id=f"correlation-{number}",
            first_seen_at=at,
        )
        seen = [
            parse("networkconnection", {"domainName": host.partition(":")[0], "port": host.partition(":")[2] or "443"})
            for host in hosts
        ]
        actions.observe(run=run, events=seen, received_at=at + timedelta(minutes=1))


def written(mode, *endpoints):
    return f"egress-policy: {mode}\nallowed-endpoints: >\n" + "".join(f"  {endpoint}:443\n" for endpoint in endpoints)


def policy(organization, name, mode, *endpoints, at=()):
    made = factories.policy(organization, name, text=written(mode, *endpoints))
    if at:
        attachments.ModifyAttachments(policy=made, add=at).apply(by=SYSTEM)
        made.refresh_from_db()
    return made


def impact_of(organization, text, saved=None, **more):
    bitmap_store.catch_up()
    return preview.replay_draft(preview.compile_draft(organization, text), policy=saved, days=30, **more)


def post(client, view, *arguments, headers=None, **values):
    bitmap_store.catch_up()
    return client.post(reverse(view, args=["octo-org", *arguments]), values, headers=headers or {})


def words(answer):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode())).replace(" .", ".")


def told(rows):
    return [(row.text, row.runs, row.workflows) for row, _ in rows.rows]


# Drafts


def test_a_draft_is_replayed_over_the_runs_that_get_its_policy(organization):
    saved = policy(organization, "repo", "block", "a.example", at=[REPOSITORY])
    policy(organization, "release", "block", at=[WORKFLOW])
    ran(organization, "a.example", times=3)
    ran(organization, "a.example", "b.example", times=2)
    ran(organization, "b.example", workflow="Nightly.yml")
    ran(organization, "c.example", workflow="release.yml")
    ran(organization, "c.example", repository="other")
    found = impact_of(organization, written("block", "a.example"), saved)
    assert (found.replay.off_list, found.replay.runs) == (3, 6)
    assert found.replay.off_list_workflows == {("hello-world", "ci.yml"), ("hello-world", "Nightly.yml")}
    assert told(found.endpoints) == [("b.example:443", 3, ["hello-world/Nightly.yml", "hello-world/ci.yml"])]
    assert (found.replay.more, found.replay.fewer) == (0, 0)


def test_a_draft_is_compared_with_the_saved_version(organization):
    saved = policy(organization, "repo", "block", "a.example", at=[REPOSITORY])
    ran(organization, "a.example", times=2)
    ran(organization, "b.example")
    found = impact_of(organization, written("block", "b.example"), saved)
    assert (found.replay.off_list, found.replay.more, found.replay.fewer) == (2, 2, 1)
    assert told(found.freed) == [("b.example:443", 1, ["hello-world/ci.yml"])]


def test_listed_endpoints_that_no_run_called_are_told(organization):
    saved = policy(organization, "repo", "audit", at=[REPOSITORY])
    ran(organization, "a.example", "x.cdn.example")
    ran(organization, "other.example", repository="other")
    draft = written("audit", "a.example", "*.cdn.example", "*.mirror.example", "other.example")
    found = impact_of(organization, draft, saved)
    assert found.unused == ["*.mirror.example:443", "other.example:443"]
    assert found.listed == 4


def test_endpoints_of_the_sets_that_a_draft_includes_count_as_listed(organization):
    endpoint_sets.create(organization=organization, name="cdn", text="a.example:443\nnever.example:443\n", by=SYSTEM)
    ran(organization, "a.example")
    ran(organization, "b.example")
    found = impact_of(organization, written("block", "b.example") + "endpoint-sets: cdn\n")
    assert (found.replay.off_list, found.replay.runs) == (0, 2)
    assert (found.unused, found.listed) == (["never.example:443"], 3)
    assert preview.compile_draft(organization, "egress-policy: block\nendpoint-sets: unknown\n") is None


def test_scopes_without_traffic_and_shadowed_ones_are_told_by_type(organization):
    quiet = [Scope.for_workflow("octo-org", "hello-world", f"quiet-{number}.yml") for number in range(3)]
    saved = policy(organization, "repo", "block", at=[REPOSITORY, CLUSTER, *quiet])
    ran(organization, "a.example", cluster="k8s", times=2)
    rows = {row.type.value: row for row in impact_of(organization, written("block"), saved).types}
    assert list(rows) == ["workflow", "repository", "cluster"]
    assert (rows["workflow"].scopes, rows["workflow"].quiet, rows["workflow"].runs) == (3, 3, 0)
    assert rows["workflow"].quiet_labels[0] == "octo-org/hello-world/quiet-0.yml"
    assert (rows["repository"].quiet, rows["repository"].runs) == (0, 2)
    assert (rows["cluster"].quiet, rows["cluster"].shadowed_labels) == (0, ["k8s"])


def test_a_draft_that_is_attached_nowhere_is_replayed_over_everything_or_where_it_is_tried(organization):
    policy(organization, "release", "audit", at=[WORKFLOW])
    ran(organization, "a.example", times=2)
    ran(organization, "a.example", workflow="release.yml")
    ran(organization, "a.example", repository="other")
    everywhere = impact_of(organization, written("block"))
    assert (everywhere.replay.off_list, everywhere.is_attached, everywhere.compared) == (4, False, None)
    tried = impact_of(organization, written("block"), over=REPOSITORY)
    assert (tried.replay.off_list, tried.replay.runs) == (2, 2)
    offered = {kind.value: [(scope.key, runs) for scope, runs in scopes] for kind, scopes in tried.offered}
    assert offered["organization"] == [("organization:octo-org", 4)]
    assert offered["repository"][0] == (REPOSITORY.key, 3)
    nowhere = impact_of(organization, written("block"), over=CLUSTER)
    assert [(row.type.value, row.quiet) for row in nowhere.types] == [("cluster", 1)]


def test_traffic_of_another_organization_does_not_count(organization):
    ran(factories.organization("other"), "a.example")
    assert impact_of(organization, written("block")).replay.runs == 0


def test_the_editor_asks_and_is_told_in_a_fragment(organization, ann):
    saved = policy(organization, "repo", "block", "a.example", at=[REPOSITORY])
    ran(organization, "a.example", "b.example", times=14)
    ran(organization, "a.example", times=6)
    editor = ann.get(reverse("policies:edit", args=["octo-org", saved.pk])).content.decode()
    assert f'hx-post="{reverse("impact:draft", args=["octo-org"])}"' in editor
    values = {"text": saved.text, "policy": saved.pk, "impact_in_place": "1"}
    answer = post(ann, "impact:draft", headers=FRAGMENT, **values)
    assert "Would block 14 of 20 job runs in 1 workflow." in words(answer)
    assert "<html" not in answer.content.decode()
    assert "HX-Request" in answer.headers["Vary"]
    assert 'hx-target="#added"' in answer.content.decode()


def test_an_audit_draft_tells_what_block_would_do(organization, ann):
    ran(organization, "a.example", times=2)
    ran(organization, "github.com")
    answer = post(ann, "impact:draft", text=written("audit", "github.com"))
    assert "Audit mode: nothing is blocked. Block mode would have blocked 2 of 3 job runs in 1 workflow." in words(
        answer
    )
    assert "would have blocked none of 3 job runs" in words(post(ann, "impact:draft", text=written("audit", "*")))
    assert "Would block none of 3 job runs." in words(post(ann, "impact:draft", text=written("block", "*")))


def test_no_traffic_is_told_as_no_data(organization, ann):
    saved = policy(organization, "repo", "block", at=[REPOSITORY])
    answer = words(post(ann, "impact:draft", text=saved.text, policy=saved.pk))
    assert "No data." in answer
    assert "No data for octo-org/hello-world" in answer
    assert "Would block" not in answer
    ran(organization, "a.example", workflow="release.yml")
    policy(organization, "release", "audit", at=[WORKFLOW])
    assert "all have a more specific policy" in words(post(ann, "impact:draft", text=saved.text, policy=saved.pk))


def test_the_days_are_chosen_on_the_page(organization, ann, settings):
    settings.IMPACT_DAYS = 10
    for days in (1, 9, 20, 80):
        ran(organization, "a.example", days=days)
    for chosen, runs in (({}, 2), ({"impact_days": "7"}, 1), ({"impact_days": "90"}, 4), ({"impact_days": "x"}, 2)):
        answer = post(ann, "impact:draft", text=written("block"), **chosen)
        assert answer.context["impact"].replay.runs == runs
    assert answer.context["impact"].window.choices == [7, 10, 14, 30, 60, 90]


def test_without_scripts_a_page_shows_the_impact_and_its_add_goes_on_in_the_editor(organization, ann):
    listed = "  b.example:443  # first\n\n  a.example:443\n"
    text = f"# ours\negress-policy: block\nallowed-endpoints: >\n{listed}disable-sudo: true\n"
    saved = policy(organization, "repo", "block", at=[REPOSITORY])
    ran(organization, "c.example", "b.example")
    carried = {"text": text, "name": "renamed", "description": "d", "version": "1", "policy": saved.pk}
    page = post(ann, "impact:draft", **carried)
    html = page.content.decode()
    assert "<html" in html
    assert 'hx-target="#added"' not in html
    editor = reverse("policies:edit", args=["octo-org", saved.pk])
    assert re.search(rf'name="add" value="c.example:443" formaction="{editor}#impact"', html)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', html))
    assert {name: hidden[name] for name in ("name", "version", "policy")} == {
        "name": "renamed",
        "version": "1",
        "policy": str(saved.pk),
    }
    added = ann.post(editor, {**carried, "add": "c.example:443"})
    expected = text.replace("  a.example:443\n", "  a.example:443\n  c.example:443\n")
    assert added.context["form"]["text"].value() == expected
    assert added.context["form"]["name"].value() == "renamed"
    assert Policy.objects.get(pk=saved.pk).version == 1


def test_what_a_policy_cannot_list_has_no_add(organization, ann):
    at = timezone.now()
    ran(organization, "a.example")
    run = JobRun.objects.get()
    actions.observe(run=run, events=[parse("networkconnection", {"ipAddress": "192.0.2.7"})], received_at=at)
    answer = post(ann, "impact:draft", text=written("block"))
    html = answer.content.decode()
    assert 'value="a.example:443"' in html
    assert 'value="192.0.2.7:443"' not in html
    assert "is an IP address" in html


def test_what_is_never_allowed_has_no_add(organization, ann):
    never_allow.add(organization=organization, host="*.paste.example", reason="Anybody can write there.", by=SYSTEM)
    ran(organization, "x.paste.example")
    html = post(ann, "impact:draft", text=written("block")).content.decode()
    assert 'value="x.paste.example:443"' not in html
    assert "*.paste.example is never allowed: Anybody can write there." in html


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"text": "egress-policy: nope\n"}, "The policy has errors"),
        ({"text": ""}, "The policy has errors"),
        ({"text": written("block"), "impact_over": "nonsense"}, "is not a scope"),
        ({"text": written("block"), "impact_over": "repository:theirs/x"}, "does not belong to octo-org"),
    ],
)
def test_what_cannot_be_replayed_is_told(organization, ann, values, said):
    for headers in ({}, FRAGMENT):
        answer = post(ann, "impact:draft", headers=headers, **values)
        assert answer.status_code == 422
        assert said in words(answer)


def test_a_policy_that_is_not_there_or_not_ours_is_not_found(organization, ann):
    theirs = factories.policy(factories.organization("theirs"), "theirs")
    for told_id in (theirs.pk, 10**18):
        assert post(ann, "impact:draft", text=written("block"), policy=told_id).status_code == 404
    for nonsense in ("x", "1" * 40, "-1"):
        assert post(ann, "impact:draft", text=written("block"), policy=nonsense).status_code == 200


def test_it_says_while_past_traffic_is_still_prepared(organization, ann):
    ran(organization, "a.example")
    answer = ann.post(reverse("impact:draft", args=["octo-org"]), {"text": written("block")})
    assert "still preparing past traffic (0 %)" in words(answer)
    bitmap_store.catch_up()
    moment = BitmapProgress.objects.get().caught_up_at
    answer = ann.post(reverse("impact:draft", args=["octo-org"]), {"text": written("block")})
    assert f"arrived after {moment:%Y-%m-%d %H:%M:%S} UTC are not in yet" in words(answer)


# Changes of scopes


def test_attaching_changes_only_runs_without_a_more_specific_policy(organization):
    policy(organization, "release", "audit", at=[WORKFLOW])
    strict = policy(organization, "strict", "block", "a.example")
    ran(organization, "a.example", times=2)
    ran(organization, "b.example")
    ran(organization, "b.example", workflow="release.yml")
    bitmap_store.catch_up()
    found = preview.attachment(strict, add=[REPOSITORY], days=30)
    assert (found.runs, found.stopped, found.more, found.fewer) == (3, 1, 1, 0)
    assert [(part.before, part.after) for part in found.parts] == [(None, strict)]
    assert told(found.parts[0].endpoints) == [("b.example:443", 1, ["hello-world/ci.yml"])]
    assert [(row.type.value, row.runs) for row in found.added] == [("repository", 3)]


def test_replacing_tells_what_the_new_policy_blocks_and_what_the_old_one_did(organization):
    loose = policy(organization, "loose", "block", "a.example", at=[REPOSITORY])
    strict = policy(organization, "strict", "block", "b.example", at=[ORGANIZATION])
    ran(organization, "a.example", times=2)
    ran(organization, "b.example", times=3)
    ran(organization, "a.example", repository="other")
    bitmap_store.catch_up()
    found = preview.attachment(strict, add=[REPOSITORY], days=30)
    assert [(part.before, part.after, part.replay.runs) for part in found.parts] == [(loose, strict, 5)]
    assert (found.stopped, found.more, found.fewer) == (2, 2, 3)
    assert told(found.parts[0].freed) == [("b.example:443", 3, ["hello-world/ci.yml"])]


def test_taking_a_scope_away_lets_its_runs_fall_back(organization):
    default = policy(organization, "default", "audit", at=[ORGANIZATION])
    strict = policy(organization, "strict", "block", "a.example", at=[REPOSITORY, WORKFLOW])
    ran(organization, "b.example", times=2)
    ran(organization, "b.example", workflow="release.yml")
    bitmap_store.catch_up()
    found = preview.attachment(strict, remove=[REPOSITORY], days=30)
    assert [(part.before, part.after, part.replay.runs) for part in found.parts] == [(strict, default, 2)]
    assert (found.stopped, found.fewer) == (0, 2)
    # A scope that another policy holds by now cannot be taken from this one.
    assert preview.attachment(strict, remove=[ORGANIZATION], days=30).runs == 0


def test_detaching_tells_the_next_level_and_none(organization):
    cluster = policy(organization, "cluster", "block", "b.example", at=[CLUSTER])
    strict = policy(organization, "strict", "block", "a.example", at=[REPOSITORY, WORKFLOW])
    ran(organization, "b.example", times=2)
    ran(organization, "a.example", cluster="k8s", workflow="release.yml")
    bitmap_store.catch_up()
    found = preview.detachment(strict, days=30)
    parts = [(part.after, part.replay.runs, part.stopped, part.replay.fewer) for part in found.parts]
    assert parts == [(None, 2, 0, 2), (cluster, 1, 1, 0)]
    assert [(row.type.value, row.runs) for row in found.removed] == [("workflow", 1), ("repository", 2)]
    assert (found.runs, found.stopped, found.more, found.fewer) == (3, 1, 1, 2)


def test_the_pages_of_scopes_tell_it_in_a_fragment_and_on_a_page(organization, ann):
    strict = policy(organization, "strict", "block", "a.example", at=[REPOSITORY])
    fallback = policy(organization, "fallback", "block", "c.example", at=[ORGANIZATION])
    ran(organization, "b.example", "a.example")
    bitmap_store.catch_up()
    for name in ("detach", "delete"):
        slot = ann.get(reverse(f"policies:{name}", args=["octo-org", strict.pk])).content.decode()
        address = reverse(f"impact:{name}", args=["octo-org", strict.pk])
        assert f'hx-get="{address}"' in slot
        assert f'action="{address}"' in slot
        for headers in ({}, FRAGMENT):
            answer = ann.get(address, {"impact_days": "7"}, headers=headers)
            assert "1 job run in 1 workflow would get a different policy, or none." in words(answer)
            assert ("<html" in answer.content.decode()) is (not headers)
        add = reverse("policies:edit", args=["octo-org", fallback.pk]) + "?add=b.example%3A443"
        assert add in answer.content.decode()


def test_an_attachment_that_is_being_chosen_is_told_and_carried_along(organization, ann):
    strict = policy(organization, "strict", "block", "a.example")
    ran(organization, "b.example")
    slot = post(ann, "policies:attach", strict.pk, add=REPOSITORY.key, action="find")
    assert f'hx-post="{reverse("impact:attach", args=["octo-org", strict.pk])}"' in slot.content.decode()
    page = post(ann, "impact:attach", strict.pk, add=REPOSITORY.key, remove=WORKFLOW.key)
    assert "1 of them in 1 workflow would be blocked." in words(page)
    for name, scope in (("add", REPOSITORY), ("remove", WORKFLOW)):
        assert f'<input type="hidden" name="{name}" value="{scope.key}">' in page.content.decode()
    back = post(ann, "policies:attach", strict.pk, add=REPOSITORY.key, action="back")
    assert [target.scope.key for target in back.context["pending"]] == [REPOSITORY.key]
    assert "Choose scopes" in words(post(ann, "impact:attach", strict.pk, headers=FRAGMENT))
    assert "No data." in words(post(ann, "impact:attach", strict.pk, add=CLUSTER.key))
    for wrong in ("nonsense", "repository:theirs/x"):
        assert post(ann, "impact:attach", strict.pk, add=wrong).status_code == 422


def test_replacing_shows_the_impact_before_it_is_confirmed(organization, ann):
    policy(organization, "holder", "audit", at=[REPOSITORY])
    strict = policy(organization, "strict", "block")
    asked = post(ann, "policies:attach", strict.pk, add=REPOSITORY.key, action="save")
    assert asked.status_code == 409
    assert f'hx-post="{reverse("impact:attach", args=["octo-org", strict.pk])}"' in asked.content.decode()


def slot_of(page):
    """What the form of a page's slot posts, and where to."""
    form = re.search(
        r'<form method="post" action="([^"]+/impact/[^"]+)">(.*?)</form>', page.content.decode(), re.DOTALL
    )
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form.group(2))
    text = re.search(r"<textarea name=\"text\"[^>]*>\n(.*?)</textarea>", form.group(2), re.DOTALL)
    values = {name: value for name, value in hidden if name != "csrfmiddlewaretoken"}
    return form.group(1), values | ({"text": unescape(text.group(1))} if text else {})


def test_the_page_that_restores_a_version_shows_its_impact(organization, ann):
    saved = policy(organization, "repo", "block", "a.example", at=[REPOSITORY])
    ran(organization, "b.example", times=2)
    policies.UpdatePolicy(
        policy=saved, name=saved.name, description="", text=written("block", "b.example"), expected_version=1
    ).apply(by=SYSTEM)
    bitmap_store.catch_up()
    address, values = slot_of(ann.get(reverse("policies:restore", args=["octo-org", saved.pk, 1])))
    assert values["text"] == saved.text
    answer = ann.post(address, values, headers=FRAGMENT)
    assert "Would block 2 of 2 job runs in 1 workflow. The saved version lets 2 of these through." in words(answer)


def test_a_request_that_waits_for_a_second_person_shows_its_impact(organization, ann):
    factories.four_eyes_on(organization)
    saved = policy(organization, "repo", "block", "a.example", at=[REPOSITORY])
    policy(organization, "wide", "audit", "a.example")
    ran(organization, "b.example")
    bitmap_store.catch_up()
    asked = {"name": "repo", "description": "", "text": written("block", "b.example"), "version": 1}
    ann.post(reverse("policies:edit", args=["octo-org", saved.pk]), asked)
    ann.post(reverse("policies:detach", args=["octo-org", saved.pk]))
    edit, detach = ChangeRequest.objects.order_by("pk")
    address, values = slot_of(ann.get(reverse("policies:change-request", args=["octo-org", edit.pk])))
    assert "Would block none of 1 job run." in words(ann.post(address, values, headers=FRAGMENT))
    address, values = slot_of(ann.get(reverse("policies:change-request", args=["octo-org", detach.pk])))
    assert values == {"remove": REPOSITORY.key}
    assert "1 job run that is blocked now would go through." in words(ann.post(address, values, headers=FRAGMENT))


def add_open_exception(saved, endpoint, *, hours=1):
    at = timezone.now() - timedelta(minutes=5)
    values = {"reason": "A vendor moves", "expires_at": at + timedelta(hours=hours)}
    exceptions.AddException(policy=saved, endpoint=endpoint, **values).apply(by=SYSTEM, at=at)
    saved.refresh_from_db()


def test_a_draft_keeps_the_exceptions_of_its_policy_and_says_so(organization, ann):
    saved = policy(organization, "repo", "block", "a.example", at=[REPOSITORY])
    add_open_exception(saved, "b.example:443")
    add_open_exception(saved, "c.example:443")
    never_allow.add(organization=organization, host="c.example", reason="x", by=SYSTEM)
    ran(organization, "b.example", times=2)
    ran(organization, "c.example")
    answer = post(ann, "impact:draft", policy=saved.pk, text=f"{saved.text}# x\n")
    assert "Would block 1 of 3 job runs in 1 workflow." in words(answer)
    assert "1 exception of repo remains active, so the endpoint counts as allowed: b.example:443 until" in words(answer)
    elsewhere = post(ann, "impact:draft", text=saved.text)
    assert "Would block 3 of 3 job runs" in words(elsewhere)
    assert "exception" not in words(elsewhere)


def test_a_change_of_scopes_counts_the_exceptions_of_both_policies(organization, ann):
    strict = policy(organization, "strict", "block", "a.example", at=[REPOSITORY])
    policy(organization, "wide", "block", at=[ORGANIZATION])
    add_open_exception(strict, "b.example:443")
    ran(organization, "b.example")
    impact = preview.detachment
    bitmap_store.catch_up()
    assert (impact(strict, days=30).more, impact(strict, days=30).stopped) == (1, 1)
    page = ann.get(reverse("impact:detach", args=["octo-org", strict.pk]))
    assert "1 exception of strict no longer applies to these runs: b.example:443 until" in words(page)
    wide = Policy.objects.get(name="wide")
    add_open_exception(wide, "c.example:443")
    page = ann.get(reverse("impact:detach", args=["octo-org", strict.pk]))
    assert "1 exception of wide remains active" in words(page)


def test_the_number_of_queries_does_not_grow(organization):
    strict = policy(organization, "strict", "block", "a.example", at=[REPOSITORY])

    def counted():
        bitmap_store.catch_up()
        with CaptureQueriesContext(connection) as asked:
            preview.replay_draft(preview.compile_draft(organization, strict.text), policy=strict, days=30)
            preview.detachment(strict, days=30)
            preview.attachment(strict, add=[WORKFLOW, CLUSTER], remove=[REPOSITORY], days=30)
        return len(asked)

    ran(organization, "a.example")
    counted()
    before = counted()
    for number in range(6):
        scope = Scope.for_repository("octo-org", f"repository-{number}")
        policy(organization, f"other-{number}", "block", at=[scope])
        ran(organization, "a.example", f"b{number}.example", repository=f"repository-{number}", times=2)
        ran(organization, "c.example", workflow=f"w{number}.yml")
    assert counted() == before
