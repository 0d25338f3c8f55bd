"""Keys, members, inventory and one-time links, by their pages; and the admin."""

import io
import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib import admin
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from policystore.accounts import api_keys, sign_in
from policystore.accounts.models import (
    AccountEvent,
    Actor,
    ApiKey,
    FormerMember,
    KeyKind,
    KeySlot,
    Membership,
    Role,
    SignInLink,
    User,
)
from policystore.inventory.models import Cluster, Organization, Repository, Workflow
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def owner(organization):
    return signed_in(factories.member(organization, Role.OWNER, "olga"))


def signed_in(person):
    client = Client()
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def address(name, *arguments):
    return reverse(f"settings:{name}", args=["octo-org", *arguments])


def generate(client, kind, slot, **more):
    return client.post(address("regenerate-key"), {"kind": kind, "slot": slot, **more})


def works(key):
    target = "/v1/github/octo-org/hello/actions/policies/workflow-policy"
    return ask("GET", target, {"authorization": f"vm-api-key {key}"}).status == 404


def test_each_key_of_a_pair_is_replaced_on_its_own_after_asking(owner):
    first = {slot: generate(owner, "vm", slot).context["fresh_key"] for slot in ("primary", "secondary")}
    assert all(works(key) for key in first.values())
    asked = generate(owner, "vm", "primary").content.decode()
    assert "stops working immediately" in asked
    assert works(first["primary"])
    second = generate(owner, "vm", "primary", confirmed="on").context["fresh_key"]
    assert (works(first["primary"]), works(first["secondary"]), works(second)) == (False, True, True)
    told = list(AccountEvent.objects.order_by("pk").values_list("kind", flat=True))
    assert told == ["key created", "key created", "key regenerated"]


def test_what_refers_to_the_organization_can_be_written_while_a_key_is_made(organization):
    by = Actor("olga")
    with CaptureQueriesContext(connection) as captured:
        api_keys.regenerate(organization=organization, kind=KeyKind.VM, slot=KeySlot.PRIMARY, by=by)
        api_keys.create_management(organization=organization, name="deploy", by=by)
    said = " ".join(query["sql"] for query in captured)
    assert said.count("FOR NO KEY UPDATE") == (2 if connection.vendor == "postgresql" else 0)
    assert "FOR UPDATE" not in said


def test_sending_the_same_answer_again_asks_again_instead_of_voiding_the_fresh_key(owner):
    generate(owner, "vm", "primary")
    page = generate(owner, "vm", "primary").content.decode()
    answer = {"confirmed": "on", "replacing": re.search(r'name="replacing" value="(\d+)"', page).group(1)}
    fresh = generate(owner, "vm", "primary", **answer).context["fresh_key"]
    assert "stops working immediately" in generate(owner, "vm", "primary", **answer).content.decode()
    assert works(fresh)


def test_a_key_is_shown_once_and_kept_only_as_a_hash(owner):
    page = generate(owner, "arc", "primary")
    clear = page.context["fresh_key"]
    assert "no-store" in page.headers["cache-control"]
    assert clear not in owner.get(address("keys")).content.decode()
    stored = ApiKey.objects.get()
    assert clear not in (stored.digest, stored.hint)
    assert stored.digest == api_keys.digest_of(clear)


def test_a_key_can_be_found_by_scanners_and_told_from_a_look_alike():
    key = api_keys.new_key("vm").clear
    assert re.fullmatch(r"ps_vm_[0-9A-Za-z]{38}", key)
    assert api_keys.well_formed(key)
    other = "A" if key[-1] != "A" else "B"
    assert not api_keys.well_formed(key[:-1] + other)
    assert not api_keys.well_formed("ps_vm_" + "0" * 38)


@pytest.mark.parametrize("wrong", [{"kind": "management"}, {"slot": "third"}, {}])
def test_a_slot_that_is_none_is_refused(owner, wrong):
    form = {"kind": "vm", "slot": "primary", **wrong} if wrong else {}
    assert owner.post(address("regenerate-key"), form).status_code == 422
    assert not ApiKey.objects.exists()


def test_members_are_added_changed_and_removed_and_one_owner_stays(owner, organization):
    owner.post(address("members"), {"username": "@Mona", "role": "auditor"})
    mona = Membership.objects.get(user__username="mona")
    assert owner.post(address("members"), {"username": "mona", "role": "owner"}).status_code == 422
    assert owner.post(address("members"), {"username": "no such login!", "role": "owner"}).status_code == 422
    owner.post(address("member", mona.pk), {"role": "security_admin"})
    mona.refresh_from_db()
    assert mona.role == Role.SECURITY_ADMIN
    last = Membership.objects.get(user__username="olga")
    for page, form in (("member", {"role": "auditor"}), ("remove-member", {})):
        owner.post(address(page, last.pk), form)
        last.refresh_from_db()
        assert last.role == Role.OWNER
    owner.post(address("remove-member", mona.pk))
    assert not Membership.objects.filter(user__username="mona").exists()
    told = list(AccountEvent.objects.order_by("pk").values_list("kind", "subject"))
    assert told == [("member added", "mona"), ("role changed", "mona"), ("member removed", "mona")]
    assert "member removed" in owner.get(address("members")).content.decode()


@pytest.mark.parametrize("form", [{}, {"role": ""}, {"role": "root"}, {"other": "x"}])
def test_a_post_without_a_valid_role_changes_nothing(owner, organization, form):
    membership = factories.member(organization, Role.SECURITY_ADMIN, "mona").memberships.get()
    answer = owner.post(address("member", membership.pk), form)
    assert answer.status_code == 422
    assert "is not a valid role" in answer.content.decode()
    membership.refresh_from_db()
    assert membership.role == Role.SECURITY_ADMIN
    assert not AccountEvent.objects.exists()


def test_a_change_of_members_locks_their_memberships_alone(owner, organization):
    mona = factories.member(organization, Role.AUDITOR, "mona").memberships.get()
    with CaptureQueriesContext(connection) as captured:
        owner.post(address("member", mona.pk), {"role": "security_admin"})
    locking = [query["sql"] for query in captured if "FOR UPDATE" in query["sql"]]
    assert len(locking) == (1 if connection.vendor == "postgresql" else 0)
    assert all(
        sql.endswith('ORDER BY "accounts_membership"."id" ASC FOR UPDATE OF "accounts_membership"') for sql in locking
    )


def test_removing_a_member_asks_first(owner, organization):
    membership = factories.member(organization, Role.AUDITOR, "mona").memberships.get()
    assert address("remove-member", membership.pk) in owner.get(address("members")).content.decode()
    asked = owner.get(address("remove-member", membership.pk)).content.decode()
    assert "Remove mona?" in asked
    assert Membership.objects.filter(pk=membership.pk).exists()
    owner.post(address("remove-member", membership.pk))
    assert not Membership.objects.filter(pk=membership.pk).exists()


def test_a_removed_member_is_listed_and_can_be_added_again(owner, organization):
    membership = factories.member(organization, Role.SECURITY_ADMIN, "mona").memberships.get()
    owner.post(address("remove-member", membership.pk))
    page = owner.get(address("members")).content.decode()
    assert "Removed people" in page
    former = FormerMember.objects.get()
    assert former.removed_by == "olga"
    assert owner.post(address("add-back", former.pk), {}).status_code == 422
    assert owner.post(address("add-back", former.pk), {"role": "auditor"}).status_code == 302
    assert Membership.objects.get(user__username="mona").role == Role.AUDITOR
    assert not FormerMember.objects.exists()
    assert "Removed people" not in owner.get(address("members")).content.decode()
    assert list(AccountEvent.objects.order_by("pk").values_list("kind", flat=True)) == [
        "member removed",
        "member added",
    ]


def test_very_many_members_are_paged_and_found(owner, organization):
    people = User.objects.bulk_create(User(username=f"member-{number:03}") for number in range(120))
    Membership.objects.bulk_create(
        Membership(user=person, organization=organization, role=Role.AUDITOR) for person in people
    )
    first = owner.get(address("members")).content.decode()
    assert "member-000" in first
    assert "member-119" not in first
    assert "Page 1 of 3" in first
    assert "member-119" in owner.get(address("members") + "?page=3").content.decode()
    found = owner.get(address("members") + "?q=R-119").content.decode()
    assert "member-119" in found
    assert "member-000" not in found
    assert "contains “nobody”" in owner.get(address("members") + "?q=nobody").content.decode()


def test_clusters_that_are_not_shown_can_be_searched(owner, organization):
    Cluster.objects.bulk_create(
        Cluster(organization=organization, name=f"cluster-{number:03}") for number in range(201)
    )
    page = owner.get(address("inventory")).content.decode()
    assert "The first 200 are shown; search for the others." in page
    assert "cluster-200" not in page
    assert "cluster-200" in owner.get(address("inventory") + "?q=er-200").content.decode()


def test_the_pages_of_the_inventory_keep_the_search(owner, organization):
    Repository.objects.bulk_create(
        Repository(organization=organization, key=f"service-{number:03}", name=f"service-{number:03}")
        for number in range(51)
    )
    page = owner.get(address("inventory") + "?q=service%26-").content.decode()
    assert "Page 1 of" not in page
    page = owner.get(address("inventory") + "?q=SERVICE-").content.decode()
    assert "Page 1 of 2" in page
    assert 'href="?q=SERVICE-&amp;page=2"' in page
    assert "service-050" not in page
    assert "service-050" in owner.get(address("inventory") + "?q=SERVICE-&page=2").content.decode()


def test_a_membership_of_another_organization_is_not_there(owner):
    theirs = factories.member(factories.organization("other"), Role.OWNER, "them").memberships.get()
    assert owner.post(address("member", theirs.pk), {"role": "auditor"}).status_code == 404


def test_inventory_is_entered_by_hand_and_compares_as_github_does(owner):
    for form in (
        {"repository": "Hello-World", "workflow": "ci.yml"},
        {"repository": "hello-world", "workflow": "CI.yml"},
        {"cluster": "dev-k8s"},
    ):
        assert owner.post(address("inventory"), form).status_code == 302
    assert Repository.objects.get().name == "Hello-World"
    assert set(Workflow.objects.values_list("file_name", flat=True)) == {"ci.yml", "CI.yml"}
    for wrong in (
        {},
        {"workflow": "ci.yml"},
        {"repository": "a/b"},
        {"repository": "a", "workflow": "ci"},
        {"cluster": "a b"},
    ):
        page = owner.post(address("inventory"), wrong)
        assert page.status_code == 422
        assert "errorlist" in page.content.decode()


def test_inventory_is_loaded_from_a_file_good_rows_kept_and_bad_ones_told(tmp_path):
    path = tmp_path / "inventory.csv"
    path.write_bytes(
        b"\xef\xbb\xbfowner,repository,workflow\nOcto-Org,Hello,ci.yml\nocto-org,hello,ci.yml\n\nocto-org,,x.yml\n"
        b"a b,c,d.yml\nocto-org,other\n1,2,3,4\n"
    )
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError):
        call_command("import_inventory", str(path), stdout=out, stderr=err)
    said = out.getvalue() + err.getvalue()
    for line in (5, 6, 8):
        assert f"{line}" in said
    assert Organization.objects.get().key == "octo-org"
    assert sorted(Repository.objects.values_list("key", flat=True)) == ["hello", "other"]
    assert Workflow.objects.count() == 1


def test_a_link_signs_in_once_and_looking_at_it_does_not_use_it_up(organization):
    person = factories.member(organization, Role.OWNER, "olga")
    link = reverse("sign-in-link", args=[sign_in.issue_link(user=person)])
    first, second = Client(), Client()
    assert first.get(link).status_code == 200
    assert first.post(link).status_code == 302
    assert first.get(address("members")).status_code == 200
    assert second.post(link).status_code == 410
    assert second.get(address("members")).status_code == 302


def test_a_link_expires_and_a_newer_one_replaces_it(organization):
    person = factories.member(organization, Role.OWNER, "olga")
    old = sign_in.issue_link(user=person)
    new = sign_in.issue_link(user=person)
    assert Client().post(reverse("sign-in-link", args=[old])).status_code == 410
    SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert Client().post(reverse("sign-in-link", args=[new])).status_code == 410
    assert Client().post(reverse("sign-in-link", args=["nonsense"])).status_code == 410


def test_every_model_of_the_store_is_in_the_admin_to_be_looked_at_alone(organization):
    ours = [model for model in apps.get_models() if model.__module__.startswith("policystore.")]
    registered = admin.site._registry
    assert [model.__name__ for model in ours if model not in registered and model.__name__ != "SignInLink"] == []
    staff = factories.member(organization, Role.OWNER, "staff")
    staff.is_staff = staff.is_superuser = True
    staff.save()
    client = signed_in(staff)
    for model in ours:
        if model not in registered or model.__name__ == "User":
            continue
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert client.get(reverse(f"{name}_changelist")).status_code == 200, name
        assert client.get(reverse(f"{name}_add")).status_code == 403, name


def test_no_secret_is_shown_in_the_admin(organization):
    staff = factories.member(organization, Role.OWNER, "staff")
    staff.is_staff = staff.is_superuser = True
    staff.save()
    factories.api_key(organization)
    stored = ApiKey.objects.get()
    page = signed_in(staff).get(reverse("admin:accounts_apikey_change", args=[stored.pk])).content.decode()
    assert stored.digest not in page


def test_pages_carry_a_strict_policy_of_their_own(owner):
    page = owner.get(address("keys"))
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "same-origin"
