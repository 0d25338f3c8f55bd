"""The Django admin, where support staff look: nothing there tells a secret, goes past the history or fails."""

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import BinaryField
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import ApiKey, User
from policystore.accounts.roles import Role
from policystore.integrations.models import Integration
from tests import factories

pytestmark = pytest.mark.django_db

OURS = [model for model in admin.site._registry if model.__module__.startswith("policystore.")]


@pytest.fixture
def staff():
    person = factories.member(factories.organization(), Role.OWNER, "staff")
    person.is_staff = person.is_superuser = True
    person.save()
    client = Client(raise_request_exception=False)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def rows(model, query=""):
    """The list of a model in the admin."""
    return f"{reverse(f'admin:{model._meta.app_label}_{model._meta.model_name}_changelist')}?{query}"


def test_no_column_that_a_page_leaves_out_can_be_guessed_letter_by_letter(staff):
    factories.api_key(factories.organization())
    factories.integration(factories.organization())
    assert staff.get(rows(ApiKey)).status_code == 200
    first = ApiKey.objects.get().digest[0]
    for letter in (first, "x"):
        assert staff.get(rows(ApiKey, f"digest__startswith={letter}")).status_code == 400
        assert staff.get(rows(User, f"password__startswith={letter}")).status_code == 400
        assert staff.get(rows(Integration, f"config__address__contains={letter}")).status_code == 400


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_no_address_of_a_list_makes_it_fail(staff, model, full):
    lookups = ("__regex=(", "=%00", "__range=1", "__lt=99999999999999999999", "__year=0", "__year=99999999")
    queries = [f"{field.name}{lookup}" for field in model._meta.concrete_fields for lookup in lookups]
    others = ["e=1", "_popup=1", "o=99.-99", "p=99999", "p=x", "pk=x", "nowhere__x=1", "all="]
    if not full:
        # One for each field, each lookup in turn; what depends on no field, by turns for each model.
        queries, others = queries[:: len(lookups) + 1], others[OURS.index(model) % 4 :: 4]
    queries += [*others, "q=%00", "q=%ED%A0%80"]
    answers = {query: staff.get(rows(model, query)).status_code for query in queries}
    assert {query: status for query, status in answers.items() if status not in (200, 302, 400)} == {}


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_no_address_of_a_row_makes_it_fail(staff, model, full):
    written = ("%00", "_00", "0", "-1", "9" * 30, "x", "_ED_A0_80")
    pages = [f"{key}/{page}/" for key in written for page in ("change", "history", "delete")]
    if not full:
        # One for each way to write a key, each page in turn: all of them read the key alike.
        pages = pages[OURS.index(model) % 3 :: 4]
    for page in pages:
        assert staff.get(f"{rows(model)[:-1]}{page}").status_code in (302, 403, 404), page


def test_each_filter_narrows_its_list(staff):
    factories.policy(factories.organization())
    for model in OURS:
        filters = admin.site._registry[model].list_filter
        assert not any(isinstance(model._meta.get_field(name), BinaryField) for name in filters)
        shown = staff.get(rows(model)).context["cl"]
        links = [choice["query_string"] for offered in shown.filter_specs for choice in offered.choices(shown)]
        assert {staff.get(rows(model)[:-1] + link).status_code for link in links} <= {200}


def test_what_other_apps_keep_cannot_be_changed_past_the_history(staff):
    registered = admin.site._registry
    assert [model for model in (Group, EmailAddress, SocialApp, SocialToken) if model in registered] == []
    assert staff.get(rows(SocialAccount)).status_code == 200
    assert staff.get(reverse("admin:socialaccount_socialaccount_add")).status_code == 403
    changeable = [
        model.__name__
        for model in apps.get_models()
        if model in registered and registered[model].has_change_permission(_request(staff))
    ]
    assert changeable == ["User"]


def _request(staff):
    return staff.get(rows(User)).wsgi_request
