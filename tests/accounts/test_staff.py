"""Support staff cannot raise anybody's rights, whatever permissions they hold; each change of rights is an event."""

from urllib.parse import urlencode

import pytest
from allauth.socialaccount.models import SocialAccount
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import Client
from django.urls import NoReverseMatch, reverse

from policystore.accounts.models import AccountEvent, ApiKey, Membership, SignInLink, User
from policystore.accounts.roles import Role
from tests import factories

pytestmark = pytest.mark.django_db
BACKEND = "policystore.accounts.access.RoleBackend"

# What a form may carry that raises rights, or gives a way in.
RAISED = {
    "is_staff": "on",
    "is_superuser": "on",
    "is_active": "on",
    "role": "owner",
    "username": "raised",
    "password": "x",
    "password1": "Xx123456789!",
    "password2": "Xx123456789!",
    "usable_password": "true",
    "name": "raised",
    "provider": "github",
    "uid": "666",
    "github_id": "666",
}


@pytest.fixture
def people():
    octo = factories.organization("octo-org")
    return {
        "support": factories.user("support", is_staff=True),
        "colleague": factories.user("colleague", is_staff=True),
        "root": factories.user("root", is_staff=True, is_superuser=True),
        "mona": factories.member(octo, Role.AUDITOR, "mona"),
    }


def browser_of(person):
    client = Client(raise_request_exception=False)
    client.force_login(person, backend=BACKEND)
    return client


def give(person, held):
    if held == "every permission":
        person.user_permissions.set(Permission.objects.all())
        return
    app, _, codename = held.partition(".")
    person.user_permissions.set(
        Permission.objects.filter(content_type__app_label=app, codename__in=[codename, "view_user"])
    )


def rights():
    """All that decides what people may do and how they get in; whether somebody may sign in is apart."""
    users = User.objects.order_by("pk")
    return {
        "flags": list(users.values_list("pk", "username", "is_staff", "is_superuser", "password", "github_id")),
        "permissions": sorted(User.user_permissions.through.objects.values_list("user_id", "permission_id")),
        "groups": sorted(User.groups.through.objects.values_list("user_id", "group_id")),
        "of groups": sorted(Group.permissions.through.objects.values_list("group_id", "permission_id")),
        "roles": list(Membership.objects.order_by("pk").values_list("pk", "user_id", "role")),
        "keys": list(ApiKey.objects.values_list("pk", flat=True)),
        "links": list(SignInLink.objects.values_list("pk", flat=True)),
        "accounts": list(SocialAccount.objects.values_list("user_id", "uid")),
    }


def attempts(people):
    """Every page of the admin that takes a form, for the first rows of each model: all people are among them."""
    rows = [Membership, User, Group, Permission, Session, SocialAccount, ApiKey, SignInLink]
    models = [model for model in apps.get_models() if model in admin.site._registry or model in rows]
    for model in models:
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        yield f"/admin/{model._meta.app_label}/{model._meta.model_name}/add/"
        for pk in model._default_manager.values_list("pk", flat=True)[:4]:
            for page in ("change", "delete", "password"):
                yield f"/admin/{model._meta.app_label}/{model._meta.model_name}/{pk}/{page}/"
        try:
            yield reverse(f"admin:{name}_changelist")
        except NoReverseMatch:
            continue
    yield "/admin/password_change/"


def test_no_permission_of_staff_raises_rights(people):
    give(people["support"], "every permission")
    permissions = [str(permission.pk) for permission in Permission.objects.all()]
    targets = {"user": str(people["support"].pk), "organization": "1", "groups": ["1", "2", "3"]}
    before, support = rights(), browser_of(people["support"])
    for address in attempts(people):
        form = {**RAISED, **targets, "user_permissions": permissions, "permissions": permissions}
        form |= {
            "action": "delete_selected",
            "_selected_action": [str(one.pk) for one in people.values()],
            "post": "yes",
        }
        sent = support.post(address, urlencode(form, doseq=True), content_type="application/x-www-form-urlencoded")
        assert sent.status_code < 500, address
        assert rights() == before, address
    flags = dict(User.objects.values_list("username", "is_active"))
    assert flags == {"support": True, "colleague": True, "root": True, "mona": True}
    assert not AccountEvent.objects.filter(kind="rights changed").exists()


def change(client, person, **flags):
    fields = {name: "on" for name, value in flags.items() if value}
    return client.post(reverse("admin:accounts_user_change", args=[person.pk]), fields)


def test_staff_stop_a_person_from_signing_in_and_it_is_recorded(people):
    give(people["support"], "accounts.change_user")
    mona, support = browser_of(people["mona"]), browser_of(people["support"])
    assert change(support, people["mona"], is_active=False, is_superuser=True).status_code == 302
    assert mona.get(reverse("policies:list", args=["octo-org"])).status_code == 302
    event = AccountEvent.objects.get()
    assert (event.owner, event.kind, event.actor, event.subject) == ("octo-org", "sign-in blocked", "support", "mona")
    change(support, people["mona"], is_active=True)
    assert AccountEvent.objects.last().kind == "sign-in allowed"


@pytest.mark.parametrize("target", ["support", "colleague", "root"])
def test_staff_cannot_lock_out_staff_or_superusers(people, target):
    give(people["support"], "every permission")
    assert change(browser_of(people["support"]), people[target], is_active=False).status_code == 403
    people[target].refresh_from_db()
    assert people[target].is_active


def test_a_superuser_makes_staff_and_every_organization_sees_it(people):
    factories.organization("other")
    root = browser_of(people["root"])
    assert change(root, people["mona"], is_active=True, is_staff=True).status_code == 302
    people["mona"].refresh_from_db()
    assert (people["mona"].is_staff, people["mona"].is_superuser) == (True, False)
    events = list(AccountEvent.objects.order_by("owner").values_list("owner", "kind", "actor", "subject", "detail"))
    assert events == [
        ("octo-org", "rights changed", "root", "mona", "staff: yes"),
        ("other", "rights changed", "root", "mona", "staff: yes"),
    ]
    change(root, people["mona"], is_active=True, is_staff=True)
    assert AccountEvent.objects.count() == 2


def test_rights_do_not_change_where_the_event_cannot_be_written(people, monkeypatch):
    def fail(*_args, **_more):
        raise RuntimeError("disk full")

    monkeypatch.setattr(type(AccountEvent.objects), "record_everywhere", fail)
    assert change(browser_of(people["root"]), people["mona"], is_active=True, is_superuser=True).status_code == 500
    people["mona"].refresh_from_db()
    assert not people["mona"].is_superuser


def test_createsuperuser_leaves_an_event(people):
    call_command("createsuperuser", username="second", email="", interactive=False, verbosity=0)
    assert User.objects.get(username="second").is_superuser
    event = AccountEvent.objects.get()
    assert (event.owner, event.actor, event.subject) == ("octo-org", "createsuperuser", "second")
