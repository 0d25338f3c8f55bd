"""Every version of a policy can be viewed, compared with any other, and restored."""

import html
import re

import pytest
from django.db.models import QuerySet
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import Actor, Role
from policystore.audit_log.models import HistoryEvent
from policystore.policies import endpoint_sets
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db

MARIA = Actor("maria")
TEXT = "egress-policy: {mode}\nallowed-endpoints: >\n  github.com:443\n  {host}:443\n"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def browser(organization, role=Role.SECURITY_ADMIN, username="ann"):
    client = Client()
    person = factories.member(organization, role, username)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


@pytest.fixture
def ann(organization):
    return browser(organization)


@pytest.fixture
def policy(organization):
    """Four versions: created, edited, renamed with a description, edited; attached in between."""
    policy = factories.policy(organization, "ci", TEXT.format(mode="audit", host="one.example"))
    saved = update(policy, text=TEXT.format(mode="audit", host="two.example"))
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=MARIA)
    saved = update(saved, name="release", description="for releases")
    return update(saved, text=TEXT.format(mode="block", host="four.example"))


def update(policy, **values):
    now = {"name": policy.name, "description": policy.description, "text": policy.text, **values}
    return policies.UpdatePolicy(policy=policy, expected_version=policy.version, **now).apply(by=MARIA)


def address(name, *arguments):
    return reverse(f"policies:{name}", args=["octo-org", *arguments])


def shown(response):
    """The words of the page, without markup."""
    page = response.content.decode()
    text = re.sub(r"<[^>]+>", " ", re.sub(r"</?mark>", "", page[page.index("<main") :]))
    words = " ".join(html.unescape(text).split())
    return re.sub(r"\b(a|\d+) seconds? ago\b", "now", words)


def sides(response):
    """The left and the right lines of the first side-by-side view that differ."""
    page = response.content.decode()
    cells = re.findall(r'<td class="(removed|added)">(.*?)</td>', page.split("</table>")[0])
    plain = [(side, html.unescape(re.sub(r"<[^>]+>", "", text))) for side, text in cells]
    return [text for side, text in plain if side == "removed"], [text for side, text in plain if side == "added"]


# Viewing


def test_versions_are_listed_with_who_saved_them_and_what_changed(ann, policy):
    page = shown(ann.get(address("versions", policy.pk)))
    assert re.findall(r"Version (\d)", page) == ["4", "3", "2", "1"]
    assert "Version 4 Current maria now Policy Updated" in page
    assert "Version 3 maria now Policy Updated; name: ci → release" in page
    assert "Version 1 Policy Store now Policy Created" in page


def test_a_version_shows_its_text_and_what_runners_got(ann, policy):
    page = shown(ann.get(address("version", policy.pk, 2)))
    assert "Name ci" in page
    assert "two.example:443" in page
    assert '"allowed_endpoints": [ "github.com:443", "two.example:443" ]' in page
    assert "four.example" not in page
    page = shown(ann.get(address("version", policy.pk, 3)))
    assert "Name release Description for releases" in page


def test_a_set_that_changes_makes_a_version_of_each_policy_with_it(ann, organization):
    npm = factories.endpoint_set(organization, "npm", "two.example\n")
    policy = factories.policy(organization, "with-set", "egress-policy: audit\nendpoint-sets: npm\n")
    values = {"name": "npm", "description": "", "text": "set.example\n", "expected_version": 1}
    endpoint_sets.UpdateEndpointSet(endpoint_set=npm, **values).apply(by=MARIA)
    assert '"set.example:443"' in shown(ann.get(address("version", policy.pk, 2)))
    assert '"two.example:443"' in shown(ann.get(address("version", policy.pk, 1)))
    page = shown(ann.get(address("versions", policy.pk)))
    assert (page.count("Version 1"), page.count("Version 2")) == (1, 1)
    assert "Endpoint set npm changed." in page


@pytest.mark.parametrize("number", [0, 5, 10**30])
def test_a_version_that_is_not_there_is_not_found(ann, policy, number):
    assert ann.get(address("version", policy.pk, number)).status_code == 404
    assert ann.get(address("restore", policy.pk, number)).status_code == 404


def test_the_versions_of_a_deleted_policy_stay_and_can_become_a_new_one(ann, policy):
    policies.DeletePolicy(policy=policy).apply(by=MARIA)
    assert "This policy was deleted. Its versions stay." in shown(ann.get(address("versions", policy.pk)))
    page = ann.get(address("version", policy.pk, 2))
    assert "Create policy from this text" in page.content.decode()
    assert "/restore/" not in page.content.decode()
    assert ann.get(address("restore", policy.pk, 2)).status_code == 404
    fields = {"add": "", "name": "ci", "description": "", "text": TEXT.format(mode="audit", host="two.example")}
    assert "two.example:443" in ann.post(address("new"), fields).content.decode()


def test_history_and_policy_lead_to_the_versions(ann, policy):
    versions = f'href="{address("versions", policy.pk)}"'
    for name in ("view", "history"):
        assert versions in ann.get(address(name, policy.pk)).content.decode()
    assert f'href="{address("version", policy.pk, 3)}"' in ann.get(address("history", policy.pk)).content.decode()


def test_a_thousand_versions_come_in_pages_of_as_many_queries(ann, policy, django_assert_max_num_queries):
    def asked(path):
        with django_assert_max_num_queries(30) as counted:
            assert ann.get(path).status_code == 200
        return len(counted)

    paths = [
        address("versions", policy.pk),
        address("version", policy.pk, 2),
        address("compare", policy.pk) + "?from=1&to=3",
        address("restore", policy.pk, 2),
    ]
    few = [asked(path) for path in paths]
    many_versions(policy, 1000)
    assert [asked(path) for path in paths] == few
    page, numbers = ann.get(paths[0]).content.decode(), []
    while True:
        numbers += [int(number) for number in re.findall(r">Version (\d+)</a>", page)]
        older = re.search(r'href="(\?before=\d+)"', page)
        if older is None:
            break
        page = ann.get(paths[0] + older.group(1)).content.decode()
    assert numbers == list(range(1000, 0, -1))
    assert "one.example:443" in ann.get(address("version", policy.pk, 1)).content.decode()
    removed, added = sides(ann.get(address("compare", policy.pk) + "?from=1&to=1000"))
    assert removed == ["egress-policy: audit", "  one.example:443"]
    assert added == ["egress-policy: audit # 1000"]


def many_versions(policy, last):
    """Versions up to the last, as history events alone: saving each of them would take the test's whole time."""
    template = HistoryEvent.objects.filter(subject_id=policy.pk, version=2, kind="updated").get()
    values = {field.attname: getattr(template, field.attname) for field in HistoryEvent._meta.concrete_fields}
    numbers = range(policy.version + 1, last + 1)
    QuerySet(model=HistoryEvent).bulk_create(
        HistoryEvent(**{**values, "id": None, "sequence": None, "version": number, "text_after": text(number)})
        for number in numbers
    )
    Policy.objects.filter(pk=policy.pk).update(version=last, text=text(last))


def text(number):
    return f"egress-policy: audit # {number}\nallowed-endpoints: >\n  github.com:443\n"


# Comparing


def test_any_two_versions_are_compared_side_by_side(ann, policy):
    compared = ann.get(address("compare", policy.pk) + "?from=1&to=4")
    removed, added = sides(compared)
    assert removed == ["egress-policy: audit", "  one.example:443"]
    assert added == ["egress-policy: block", "  four.example:443"]
    assert "Name: ci → release" in shown(compared)
    assert "Description: (none) → for releases" in shown(compared)
    removed, added = sides(ann.get(address("compare", policy.pk) + "?from=4&to=1"))
    assert removed == ["egress-policy: block", "  four.example:443"]


def test_what_runners_got_is_compared_too(ann, policy):
    page = shown(ann.get(address("compare", policy.pk) + "?from=2&to=3"))
    assert "The text is the same." in page
    assert '"policy_name": "release"' in page


def test_without_numbers_the_last_two_are_compared(ann, policy):
    removed, added = sides(ann.get(address("compare", policy.pk)))
    assert removed == ["egress-policy: audit", "  two.example:443"]
    assert added == ["egress-policy: block", "  four.example:443"]


def test_a_version_and_itself_are_the_same(ann, policy):
    assert "The two versions are the same." in shown(ann.get(address("compare", policy.pk) + "?from=2&to=2"))


def test_a_long_comparison_is_bounded_until_all_of_it_is_asked_for(ann, organization):
    def long(word):
        return "egress-policy: audit\n" + "".join(f"# {word} {number} of the list\n" for number in range(2000))

    policy = update(factories.policy(organization, "long", long("old")), text=long("new"))
    page = ann.get(address("compare", policy.pk)).content.decode()
    assert page.count('class="line-number"') < 2 * 250
    assert "and 1801 more lines" in page
    assert "# new 1999 of the list" not in page
    assert "and 1801 more lines" in ann.get(address("restore", policy.pk, 1)).content.decode()
    every = ann.get(address("compare", policy.pk) + "?full=1").content.decode()
    assert "more lines" not in every
    # The words of the first lines are marked, of the rest whole lines.
    assert "<mark>new</mark> 5 of the list" in every
    assert "<mark># new 1999 of the list</mark>" in every


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("from=1&to=9", "release has no version 9; choose one from 1 to 4."),
        ("from=x&to=2", "Enter a whole number."),
        ("from=&to=2", "This field is required."),
        ("from=0&to=-1", "greater than or equal to 1"),
    ],
)
def test_a_comparison_that_cannot_be_made_says_why(ann, policy, query, said):
    answer = ann.get(f"{address('compare', policy.pk)}?{query}")
    assert answer.status_code == 422
    assert said in shown(answer)


# Restoring


def test_restoring_shows_what_changes_and_makes_a_new_version(ann, policy):
    asked = ann.get(address("restore", policy.pk, 2))
    removed, added = sides(asked)
    assert removed == ["egress-policy: block", "  four.example:443"]
    assert added == ["egress-policy: audit", "  two.example:443"]
    assert Policy.objects.get().version == 4
    answer = ann.post(address("restore", policy.pk, 2), {"version": 4})
    assert answer.status_code == 302
    saved = Policy.objects.get()
    assert (saved.version, saved.name, saved.text) == (5, "release", TEXT.format(mode="audit", host="two.example"))
    assert saved.attachment_count == 1
    event = HistoryEvent.objects.latest("pk")
    assert (event.label, event.reason, event.details) == ("Policy Updated", "Restores version 2.", {"restores": 2})
    assert (event.actor, event.version) == ("ann", 5)
    assert "Restores version 2." in shown(ann.get(address("history", policy.pk)))
    assert "Version 5 Current ann now Policy Updated Restores version 2." in shown(
        ann.get(address("versions", policy.pk))
    )


def test_name_and_description_come_back_where_that_is_wanted(ann, policy):
    assert "Restore “ci”, no description" in shown(ann.get(address("restore", policy.pk, 2)))
    ann.post(address("restore", policy.pk, 2), {"version": 4, "with_name": "on"})
    saved = Policy.objects.get()
    assert (saved.name, saved.description) == ("ci", "")


def test_a_name_that_another_policy_has_by_now_is_refused(ann, organization, policy):
    factories.policy(organization, "ci")
    answer = ann.post(address("restore", policy.pk, 2), {"version": 4, "with_name": "on"})
    assert answer.status_code == 422
    assert "already has a policy named “ci”" in shown(answer)
    assert Policy.objects.get(pk=policy.pk).version == 4


@pytest.mark.parametrize("seen", ["3", "", "x", "99"])
def test_somebody_elses_save_in_between_is_told_and_nothing_is_restored(ann, policy, seen):
    answer = ann.post(address("restore", policy.pk, 2), {"version": seen})
    assert answer.status_code == 409
    page = shown(answer)
    assert "maria saved version 4 of this policy in the meantime. Nothing was restored" in page
    assert 'name="version" value="4"' in answer.content.decode()
    assert Policy.objects.get().version == 4


def test_a_text_that_does_not_pass_todays_checks_is_refused_with_its_problems(ann, policy):
    spoiled = "egress-policy: perhaps\n"
    QuerySet(model=HistoryEvent).filter(subject_id=policy.pk, version=2, kind="updated").update(text_after=spoiled)
    answer = ann.post(address("restore", policy.pk, 2), {"version": 4})
    assert answer.status_code == 422
    page = shown(answer)
    assert "Version 2 was not restored: its text does not pass today's checks." in page
    assert "Line 1, column" in page
    assert "Fix it in the editor" in page
    assert Policy.objects.get().version == 4


def test_a_restored_version_waits_for_a_second_person_where_that_is_wanted(organization, ann, policy):
    """The policy blocks, so its changes take two; the history still says what was restored."""
    factories.four_eyes_on(organization, by=MARIA)
    waiting = ann.post(address("restore", policy.pk, 2), {"version": 4}).headers["Location"]
    assert Policy.objects.get().version == 4
    assert browser(organization, username="bea").post(waiting, {"decision": "approve"}).status_code == 302
    assert Policy.objects.get().text == TEXT.format(mode="audit", host="two.example")
    event = HistoryEvent.objects.filter(kind="updated").latest("pk")
    assert (event.reason, event.details) == ("Restores version 2.", {"restores": 2, "approved_by": "bea"})
    assert "Version 5 Current ann, approved by bea now" in shown(ann.get(address("versions", policy.pk)))


def test_what_is_saved_already_is_nothing_to_restore(ann, policy):
    assert "There is nothing to restore" in shown(ann.get(address("restore", policy.pk, 4)))
    answer = ann.post(address("restore", policy.pk, 4), {"version": 4}, follow=True)
    assert "Nothing changed" in shown(answer)
    assert Policy.objects.get().version == 4


def test_an_auditor_sees_versions_and_cannot_restore_them(organization, policy):
    auditor = browser(organization, Role.AUDITOR, "audrey")
    for path in (address("versions", policy.pk), address("version", policy.pk, 1), address("compare", policy.pk)):
        page = auditor.get(path)
        assert page.status_code == 200
        assert "/restore/" not in page.content.decode()
    assert auditor.post(address("restore", policy.pk, 1), {"version": 4}).status_code == 403
