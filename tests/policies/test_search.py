"""The list of policies: what searches and counters find, and pages of policies that sort alike."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.policies import exceptions
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments, queries
from policystore.policies.models import Attachment, Policy
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.plans import plans

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
AUDIT = "egress-policy: audit\n"
RISKY = "egress-policy: block\nallowed-endpoints: transfer.sh:443\n"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def many(organization):
    """Policies that differ in what a search reads, and one of another organization that has the same words."""
    texts = ["a.example.com:443", "registry.octo1.org:443", "registry.quay.example.org:443", "x1.example.org:8443"]
    for number in range(12):
        text = f"egress-policy: block\nallowed-endpoints: {texts[number % len(texts)]}\n"
        description = ['Kept by C:\\team\'s "core"', "100% of_it", "Größe ß", ""][number % 4]
        factories.policy(organization, f"policy-{number}", text, description=description)
    for number in (3, 7):
        attach(organization, f"policy-{number}", Scope.for_workflow("octo-org", f"shop-{number}", "Deploy.yml"))
    other = factories.organization("other-org")
    factories.policy(other, "policy-1", text, description="zebra")
    attach(other, "policy-1", Scope.for_repository("other-org", "giraffe"))
    return organization


def attach(organization, name, *scopes):
    policy = Policy.objects.get(organization=organization, name=name)
    attachments.ModifyAttachments(policy=policy, add=scopes).apply(by=ANN)


def names(organization, **chosen):
    """The names that the list shows, over all its pages."""
    shown, cursor = [], ""
    while True:
        page = queries.list_page(organization, after=cursor, size=3, **chosen)
        shown += [row.policy.name for row in page.rows]
        if not (cursor := page.next_cursor):
            return shown


def searched(organization):
    """The texts that a search reads, in lower case, by policy name."""
    texts = {}
    for policy in Policy.objects.filter(organization=organization):
        scopes = Attachment.objects.filter(policy=policy).values_list("scope_key", flat=True)
        texts[policy.name] = "\n".join([policy.name, policy.description, *policy.listed_endpoints, *scopes]).lower()
    return texts


def expected(rows, search, texts):
    """The names of those rows that a search for these words should find."""
    return [row.name for row in rows if all(word in texts[row.name] for word in search.lower().split())]


WORDS = [
    "p", "q", "!", "ß", "\\", "'", '"', "%", "_", "*", "po", "1.", "l.", "qq", "m's", "100%", "of_it", "größe", "quay",
    "c:\\team's", '"core"', "policy-1", "policy-11", "policy-99", "registry.octo1.org:443", "shop-3", "DEPLOY.yml",
    "ml", "octo-org", "zebra", "giraffe", "policy quay", "policy-1 deploy", "example shop",
    "x1.example.org:8443 policy-3", "'& | !", "a:*", " ",
]  # fmt: skip


# The data is expensive to make, so all searches of a test share it.
@pytest.mark.parametrize(("sort", "column"), [("-changed", "-changed_at"), ("name", "name_key")])
def test_a_search_finds_every_policy_that_has_all_words(many, sort, column):
    rows, texts = Policy.objects.filter(organization=many).order_by(column), searched(many)
    assert {word: names(many, search=word, sort=sort) for word in WORDS} == {
        word: expected(rows, word, texts) for word in WORDS
    }


def test_a_search_finds_names_scopes_and_descriptions_of_the_organization(many):
    counts = {"policy-11": 1, "DEPLOY.yml": 2, "größe": 3, "ß": 3, "100%": 3, "zebra": 0, "giraffe": 0}
    assert {word: len(names(many, search=word)) for word in counts} == counts


@pytest.mark.parametrize("sort", ["changed", "-name", "endpoints", "-attached"])
def test_a_counter_a_search_and_an_order_go_together(many, sort):
    factories.policy(many, "risky-policy", RISKY)
    factories.policy(many, "audit-quay", AUDIT)
    column = queries.SORT_COLUMNS[sort.removeprefix("-")][0]
    sign, texts = "-" if sort.startswith("-") else "", searched(many)
    for show in [*queries.SHOW_FILTERS, "nonsense"]:
        rows = Policy.objects.filter(queries.SHOW_FILTERS.get(show, queries.SHOW_FILTERS[""]), organization=many)
        rows = rows.order_by(f"{sign}{column}", f"{sign}pk")
        for search in ("", "policy", "quay"):
            found = names(many, show=show, sort=sort, search=search)
            assert found == expected(rows, search, texts), (show, search)


@pytest.mark.parametrize("search", ["", "policy"])
def test_pages_go_on_among_policies_that_sort_alike(many, search):
    for sort in ("endpoints", "-endpoints", "attached", "-attached"):
        shown = names(many, sort=sort, search=search)
        assert sorted(shown) == sorted(f"policy-{number}" for number in range(12)), sort


@pytest.mark.parametrize("search", ["", "policy"])
def test_pages_go_back(many, search):
    for sort in ("endpoints", "-changed"):
        first = queries.list_page(many, sort=sort, search=search, size=5)
        second = queries.list_page(many, sort=sort, search=search, size=5, after=first.next_cursor)
        back = queries.list_page(many, sort=sort, search=search, size=5, before=second.previous_cursor)
        assert [row.policy for row in back.rows] == [row.policy for row in first.rows]
        assert (first.previous_cursor, back.previous_cursor) == ("", "")
        assert first.next_cursor == back.next_cursor


def test_a_search_follows_every_change(organization):
    policy = factories.policy(organization, "ci")
    policies.UpdatePolicy(
        policy=policy, name="ci", description="walrus", text=policy.text, expected_version=policy.version
    ).apply(by=ANN)
    assert names(organization, search="walrus") == ["ci"]
    exceptions.AddException(
        policy=Policy.objects.get(),
        endpoint="lynx.example:443",
        reason="x",
        expires_at=timezone.now() + timedelta(days=1),
    ).apply(by=ANN)
    assert names(organization, search="lynx") == ["ci"]
    attach(organization, "ci", Scope.for_repository("octo-org", "badger"))
    assert names(organization, search="badger") == ["ci"]
    attachments.DetachPolicy(policy=policy).apply(by=ANN)
    assert names(organization, search="badger") == []
    policies.DeletePolicy(policy=policy).apply(by=ANN)
    factories.policy(organization, "other")
    assert names(organization, search="lynx") == []


def test_counters_follow_every_change(organization):
    other = factories.organization("other-org")
    factories.policy(other, "theirs", RISKY)
    ci = factories.policy(organization, "ci")
    factories.policy(organization, "audit", AUDIT)
    assert queries.counters(organization) == {"total": 2, "block": 1, "audit": 1, "unattached": 2, "risky": 0}
    attach(organization, "ci", Scope.for_repository("octo-org", "a"), Scope.for_repository("octo-org", "b"))
    assert queries.counters(organization)["unattached"] == 1
    policies.UpdatePolicy(policy=ci, name="ci", description="", text=RISKY, expected_version=1).apply(by=ANN)
    assert queries.counters(organization) == {"total": 2, "block": 1, "audit": 1, "unattached": 1, "risky": 1}
    policies.DeletePolicy(policy=ci).apply(by=ANN)
    assert queries.counters(organization) == {"total": 1, "block": 0, "audit": 1, "unattached": 1, "risky": 0}
    assert queries.counters(other) == {"total": 1, "block": 1, "audit": 0, "unattached": 1, "risky": 1}


def test_counters_follow_the_search(organization):
    factories.policy(organization, "ci")
    factories.policy(organization, "audit", AUDIT)
    attach(organization, "ci", Scope.for_repository("octo-org", "badger"))
    assert queries.counters(organization, "ci") == {"total": 1, "block": 1, "audit": 0, "unattached": 0, "risky": 0}
    assert queries.counters(organization, "badger")["total"] == 1
    assert set(queries.counters(organization, "nowhere").values()) == {0}


def test_a_search_is_a_constant_number_of_queries(many, django_assert_num_queries):
    for word in ("policy", "example", "policy quay example"):
        # The policies, their attachments, and which are managed as code.
        with django_assert_num_queries(3):
            queries.list_page(many, search=word, show="block")


def test_the_plain_list_reads_the_index_of_its_order(many):
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # So few rows are sorted at once whatever index there is.
            cursor.execute("SET LOCAL enable_sort = off")
    for sort, index in {"changed": "policy_by_change", "endpoints": "policy_by_endpoints"}.items():
        for direction in ("", "-"):
            page, *_ = plans(lambda sort=direction + sort: queries.list_page(many, sort=sort))
            assert index in page
            assert "TEMP B-TREE" not in page
            assert "Sort" not in page


@pytest.mark.production
@pytest.mark.needs_trigrams
def test_a_postgresql_that_has_the_extension_gets_the_trigram_indexes():
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%gin_trgm_ops%'")
        assert {name for (name,) in cursor.fetchall()} == {"policies_policy_search", "policies_attachment_search"}
