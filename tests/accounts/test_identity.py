"""People and organizations are who GitHub's numeric ids say they are, whatever names they have."""

import pytest
from allauth.socialaccount.models import SocialAccount
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from policystore.accounts import members
from policystore.accounts.models import SYSTEM, AccountEvent, Actor, FormerMember, Membership, User
from policystore.accounts.roles import Role
from policystore.inventory.models import Organization
from policystore.policies.approvals import commands
from policystore.policies.approvals import requests as change_requests
from policystore.policies.core import actions as policies
from policystore.policies.models import ChangeRequest
from tests import factories
from tests.accounts import fake_github
from tests.accounts.fake_github import sign_in

pytestmark = pytest.mark.django_db

MARIA, JONAS, MALLORY = 7, 8, 666
BACKEND = "policystore.accounts.access.RoleBackend"
PAGE = reverse("policies:list", args=["octo-org"])


@pytest.fixture
def github(monkeypatch, settings):
    github = fake_github.install(monkeypatch, settings)
    github.person(MARIA, "Maria", "Maria Lopez")
    github.join(MARIA, 1, "admin")
    github.person(JONAS, "jonas")
    github.join(JONAS, 1)
    return github


def role_of(github_id):
    membership = Membership.objects.filter(user__github_id=github_id).first()
    return membership and membership.role


def kinds():
    return list(AccountEvent.objects.order_by("pk").values_list("kind", "subject"))


def test_the_first_member_who_signs_in_teaches_the_organizations_id(github):
    client, _ = sign_in(JONAS)
    assert client.get(PAGE).status_code == 200
    assert Organization.objects.get().github_id == 1
    assert ("GitHub id set", "octo-org") in kinds()


def test_an_account_that_registers_the_old_name_gets_nothing(github):
    maria, _ = sign_in(MARIA)
    github.organization(1, "octo-inc")
    github.organization(99, "octo-org")
    github.person(MALLORY, "mallory")
    github.join(MALLORY, 99, "admin")
    client, answer = sign_in(MALLORY)
    assert answer.status_code == 403
    assert "id 99" in answer.content.decode()
    assert "octo-org:99" in answer.content.decode()
    assert client.get(PAGE).status_code == 302
    assert not User.objects.filter(github_id=MALLORY).exists()
    assert Membership.objects.count() == 1
    assert Organization.objects.get().github_id == 1
    # The real members keep their access under the new name.
    assert maria.get(PAGE).status_code == 200
    maria, _ = sign_in(MARIA)
    assert maria.get(PAGE).status_code == 200
    assert role_of(MARIA) == Role.OWNER


def test_a_member_of_both_keeps_only_the_role_of_the_real_one(github):
    sign_in(JONAS)
    github.organization(1, "octo-inc")
    github.organization(99, "octo-org")
    github.join(JONAS, 99, "admin")
    github.leave(JONAS, 1)
    _, answer = sign_in(JONAS)
    assert answer.status_code == 403
    assert role_of(JONAS) is None


def test_an_id_in_the_settings_decides_from_the_first_sign_in_on(github, settings):
    settings.GITHUB_ORGANIZATION_IDS = {"octo-org": 1}
    github.organization(1, "octo-inc")
    github.organization(99, "octo-org")
    github.person(MALLORY, "mallory")
    github.join(MALLORY, 99, "admin")
    assert sign_in(MALLORY)[1].status_code == 403
    assert not Organization.objects.exists()


def test_the_settings_replace_an_id_that_was_learned(github, settings):
    sign_in(MARIA)
    github.organization(2, "octo-org")
    github.organization(1, "deleted")
    github.leave(MARIA, 1)
    github.join(MARIA, 2, "admin")
    assert sign_in(MARIA)[1].status_code == 403
    settings.GITHUB_ORGANIZATION_IDS = {"octo-org": 2}
    client, _ = sign_in(MARIA)
    assert client.get(PAGE).status_code == 200
    assert Organization.objects.get().github_id == 2
    assert AccountEvent.objects.filter(kind="GitHub id set", detail="1 → 2").exists()


def test_a_renamed_organization_that_is_allowed_by_its_new_name_is_still_the_same(github, settings):
    sign_in(MARIA)
    github.organization(1, "octo-inc")
    settings.GITHUB_ALLOWED_ORGANIZATIONS = ["octo-inc"]
    client, _ = sign_in(MARIA)
    assert client.get(PAGE).status_code == 200
    assert Organization.objects.count() == 1


@pytest.mark.parametrize("process", ["connect", "redirect", "login&process=connect", "", "Connect"])
def test_no_second_account_is_connected(github, process):
    client, _ = sign_in(MARIA)
    github.person(MALLORY, "mallory")
    github.join(MALLORY, 1)
    assert client.post(f"/auth/github/login/?process={process}").status_code == 403
    assert client.post("/auth/github/login/", {"process": process.rpartition("=")[2]}).status_code == 403
    assert list(SocialAccount.objects.values_list("uid", flat=True)) == ["7"]


def test_a_sign_in_that_began_as_a_connection_is_refused_at_its_end(github):
    client, _ = sign_in(MARIA)
    github.person(MALLORY, "mallory")
    github.join(MALLORY, 1)
    session = client.session
    session["socialaccount_states"] = {"s": ({"process": "connect", "data": None}, 4102444800.0, "github")}
    session.save()
    answer = client.get("/auth/github/login/callback/", {"code": str(MALLORY), "state": "s"})
    assert answer.status_code == 403
    assert "another GitHub account" in answer.content.decode()
    assert list(SocialAccount.objects.values_list("uid", flat=True)) == ["7"]
    assert not User.objects.filter(github_id=MALLORY).exists()


def test_signing_in_with_another_account_ends_the_first_session(github):
    client, _ = sign_in(MARIA)
    sign_in(JONAS, client)
    assert "Signed in as jonas" in client.get(PAGE).content.decode()
    assert SocialAccount.objects.get(uid="7").user.username == "maria"
    assert SocialAccount.objects.get(uid="8").user.username == "jonas"


def test_nobody_is_recognized_by_an_email_address(github):
    # The fake GitHub gives everybody the same public address.
    sign_in(MARIA)
    User.objects.update(email="x@example.com")
    client, _ = sign_in(JONAS)
    assert "Signed in as jonas" in client.get(PAGE).content.decode()
    assert User.objects.count() == 2
    assert User.objects.get(github_id=JONAS).email == ""


@pytest.mark.parametrize(
    "said", ["{}", "[]", "null", "x", '{"id": "7", "login": "maria"}', '{"id": 7}', '{"id": true}']
)
def test_an_answer_that_does_not_say_who_signs_in_lets_nobody_in(github, said):
    github.fail(200, path="/user", body=said)
    client, answer = sign_in(MARIA)
    assert answer.status_code == 503
    assert client.get(PAGE).status_code == 302


def test_a_login_follows_its_person_and_history_keeps_the_old_name(github):
    client, _ = sign_in(MARIA)
    client.post(reverse("settings:members", args=["octo-org"]), {"username": "later", "role": "auditor"})
    github.person(MARIA, "maria-lopez", "Maria Lopez")
    client, _ = sign_in(MARIA)
    assert "Signed in as maria-lopez" in client.get(PAGE).content.decode()
    assert User.objects.get(github_id=MARIA).username == "maria-lopez"
    assert AccountEvent.objects.get(kind="member added").actor == "maria"
    assert AccountEvent.objects.get(kind="login changed").detail == "maria → maria-lopez"


def test_what_a_login_was_given_before_its_person_had_it_is_recorded(github):
    maria, _ = sign_in(MARIA)
    sign_in(JONAS)
    maria.post(reverse("settings:members", args=["octo-org"]), {"username": "jonas-s", "role": "security_admin"})
    other = factories.organization("acme")
    Membership.objects.create(user=User.objects.get(username="jonas-s"), organization=other, role=Role.OWNER)
    github.person(JONAS, "jonas-s")
    sign_in(JONAS)
    assert role_of(JONAS) == Role.AUDITOR
    merged = AccountEvent.objects.filter(kind="membership merged").order_by("owner")
    assert list(merged.values_list("owner", "subject", "actor", "detail")) == [
        ("acme", "jonas-s", SYSTEM.name, "Owner, added by login before this person had it"),
        (
            "octo-org",
            "jonas-s",
            SYSTEM.name,
            "Security admin, added by login before this person had it: their own role stays",
        ),
    ]


def test_a_login_that_passes_to_someone_else_names_the_right_person(github):
    sign_in(MARIA)
    github.person(MARIA, "maria-lopez")
    github.person(MALLORY, "maria")
    github.join(MALLORY, 1)
    client, _ = sign_in(MALLORY)
    assert "Signed in as maria<" in client.get(PAGE).content.decode()
    assert User.objects.get(github_id=MALLORY).username == "maria"
    assert role_of(MALLORY) == Role.AUDITOR
    assert User.objects.get(github_id=MARIA).username == "formerly-maria.7"
    assert role_of(MARIA) == Role.OWNER
    sign_in(MARIA)
    assert User.objects.get(github_id=MARIA).username == "maria-lopez"


def test_two_people_who_swap_logins_keep_their_roles(github):
    sign_in(MARIA)
    sign_in(JONAS)
    github.person(MARIA, "jonas")
    github.person(JONAS, "maria")
    sign_in(MARIA)
    sign_in(JONAS)
    assert [User.objects.get(github_id=one).username for one in (MARIA, JONAS)] == ["jonas", "maria"]
    assert [role_of(one) for one in (MARIA, JONAS)] == [Role.OWNER, Role.AUDITOR]


def test_a_login_of_a_local_account_of_staff_is_not_taken_over(github):
    local = factories.user("admin", is_staff=True, is_superuser=True)
    github.person(MALLORY, "admin")
    github.join(MALLORY, 1)
    client, _ = sign_in(MALLORY)
    assert "Signed in as admin.666" in client.get(PAGE).content.decode()
    assert client.get("/admin/").status_code == 302
    local.refresh_from_db()
    assert (local.username, local.github_id) == ("admin", None)


def test_who_was_added_by_login_gets_the_role_on_the_first_sign_in(github):
    octo = factories.organization("octo-org")
    members.add(organization=octo, username="Jonas", role=Role.SECURITY_ADMIN, by=SYSTEM)
    sign_in(JONAS)
    assert role_of(JONAS) == Role.SECURITY_ADMIN
    assert User.objects.count() == 1


def test_who_was_added_by_a_new_login_gets_the_role_on_the_next_sign_in(github):
    sign_in(JONAS)
    Membership.objects.all().delete()
    github.person(JONAS, "jonas-new")
    members.add(organization=Organization.objects.get(), username="jonas-new", role=Role.OWNER, by=SYSTEM)
    sign_in(JONAS)
    assert role_of(JONAS) == Role.OWNER
    assert list(User.objects.values_list("username", flat=True)) == ["jonas-new"]


def test_removed_people_stay_out_whatever_their_login_is(github):
    sign_in(JONAS)
    sign_in(MARIA)
    members.remove(membership=Membership.objects.get(user__github_id=JONAS), by=SYSTEM)
    github.person(JONAS, "someone-else")
    assert sign_in(JONAS)[1].status_code == 403
    github.person(JONAS, "jonas")
    client, answer = sign_in(JONAS)
    assert answer.status_code == 403
    assert "An owner of octo-org removed you" in answer.content.decode()
    assert client.get(PAGE).status_code == 302
    assert role_of(JONAS) is None
    assert FormerMember.objects.get().removed_by == SYSTEM.name


def test_a_person_has_one_github_account(github):
    sign_in(MARIA)
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create(username="x", github_id=MARIA)


def test_a_login_with_other_letters_is_recorded_safely(github):
    github.person(MARIA, "Maria_octo", "M" * 400 + "\0 " + "L" * 400)
    client, _ = sign_in(MARIA)
    assert client.get(PAGE).status_code == 200
    assert members.placeholder("maria_octo") is None


def test_a_session_of_someone_who_is_not_signed_in_by_github_cannot_connect(github):
    client = Client()
    client.force_login(factories.member(factories.organization("octo-org"), Role.OWNER, "local"), backend=BACKEND)
    assert client.post("/auth/github/login/?process=connect").status_code == 403


def test_renaming_oneself_does_not_make_a_second_person(github):
    """Approvals compare people by id: a new login is no second pair of eyes, and an old one no claim."""
    sign_in(MARIA)
    sign_in(JONAS)
    octo = Organization.objects.get()
    Membership.objects.update(role=Role.OWNER)
    policy = factories.policy(octo)
    commands.switch_on_four_eyes(organization=octo, by=SYSTEM)
    maria, _ = sign_in(MARIA)
    maria.post(reverse("policies:delete", args=["octo-org", policy.pk]), {"confirmed": "on", "name": policy.name})
    request = ChangeRequest.objects.get()
    assert request.requested_by == "maria"
    page = reverse("policies:change-request", args=["octo-org", request.pk])
    github.person(MARIA, "maria-lopez")
    maria, _ = sign_in(MARIA)
    assert "You cannot approve your own request" in maria.post(page, {"decision": "approve"}).content.decode()
    github.person(JONAS, "maria")
    jonas, _ = sign_in(JONAS)
    jonas.post(page, {"decision": "withdraw"})
    request.refresh_from_db()
    assert request.is_open
    jonas.post(page, {"decision": "approve"})
    request.refresh_from_db()
    assert (request.status, request.requested_by, request.decided_by) == ("approved", "maria", "maria")


def test_who_made_a_key_cannot_approve_its_requests_under_a_new_login(github):
    sign_in(MARIA)
    octo = Organization.objects.get()
    maria, _ = sign_in(MARIA)
    maria.post(reverse("settings:management-keys", args=["octo-org"]), {"name": "deploy"})
    policy = factories.policy(octo)
    change = policies.DeletePolicy(policy=policy).change(policy)
    request = change_requests.ask(change=change, by=Actor("deploy", "api_key"))
    github.person(MARIA, "maria-lopez")
    maria, _ = sign_in(MARIA)
    page = reverse("policies:change-request", args=["octo-org", request.pk])
    assert (
        "made with deploy, a management key that you created"
        in maria.post(page, {"decision": "approve"}).content.decode()
    )
