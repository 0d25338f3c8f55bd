"""The list of policies, beyond what can be looked through: searches by the index, counters by triggers, long ties."""

from datetime import timedelta

import pytest
from django.apps import apps
from django.db import connection
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from policystore.accounts.actor import Actor
from policystore.policies import finding
from policystore.policies.actions import counting
from policystore.policies.apps import mend_derived
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments, queries
from policystore.policies.derived import grams
from policystore.policies.exceptions import actions as exceptions
from policystore.policies.models import Policy, PolicyCount
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.plans import plans

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
AUDIT = "egress-policy: audit\n"
RISKY = "egress-policy: block\nallowed-endpoints: transfer.sh:443\n"

# The index of the list's pages, by what is shown and the column that they are sorted by.
WALKED = {
    **{
        (mode, column): index
        for mode in ("block", "audit")
        for column, index in {
            "changed": "policy_by_mode",
            "name": "policy_mode_name",
            "endpoints": "policy_mode_endpoints",
            "attached": "policy_mode_attachments",
        }.items()
    },
    ("unattached", "changed"): "policy_unattached_change",
    ("unattached", "name"): "policy_unattached_name",
    ("unattached", "endpoints"): "policy_unattached_endpoints",
    ("unattached", "attached"): "policy_unattached_change",
    ("risky", "changed"): "policy_risky",
    ("risky", "name"): "policy_risky_name",
    ("risky", "endpoints"): "policy_risky_endpoints",
    ("risky", "attached"): "policy_risky_attachments",
}


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def many(organization):
    """Policies that differ in what a search reads, and other ones of another organization that hold the same words."""
    texts = ["a.example.com:443", "registry.octo1.org:443", "registry.quay.example.org:443", "x1.example.org:8443"]
    for number in range(12):
        text = f"egress-policy: block\nallowed-endpoints: {texts[number % len(texts)]}\n"
        description = ['Kept by C:\\team\'s "core"', "100% of_it", "Größe ß", ""][number % 4]
        factories.policy(organization, f"policy-{number}", text, description=description)
    for number in (3, 7):
        attach(organization, f"policy-{number}", Scope.for_workflow("octo-org", f"shop-{number}", "Deploy.yml"))
    other = factories.organization("other-org")
    factories.policy(other, "policy-1", text, description="zebra")
    return organization


def attach(organization, name, *scopes):
    policy = Policy.objects.get(organization=organization, name=name)
    attachments.modify(policy=policy, add=scopes, by=ANN)


def names(organization, **chosen):
    """What the list shows, over all its pages."""
    found, cursor = [], ""
    while True:
        page = queries.list_page(organization, after=cursor, size=3, **chosen)
        found += [row.policy.name for row in page.rows]
        if not (cursor := page.next_cursor):
            return found


def counted(organization):
    rows = Policy.objects.filter(organization=organization)
    shown = {name or "total": rows.filter(wanted).count() for name, wanted in queries.SHOW_FILTERS.items()}
    return queries.Counters(**shown)


WORDS = [
    "p", "q", "!", "ß", "\\", "'", '"', "%", "_", "*", "po", "1.", "l.", "qq", "m's", "100%", "of_it", "größe", "quay",
    "c:\\team's", '"core"', "policy-1", "policy-11", "policy-99", "registry.octo1.org:443", "shop-3", "DEPLOY.yml",
    "ml", "octo-org", "zebra", "policy quay", "policy-1 deploy", "example shop", "x1.example.org:8443 policy-3",
    "'& | !", "a:*",
]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("sort", ["-changed", "name"])
def test_the_index_finds_what_looking_through_finds(many, monkeypatch, word, sort):
    looked_through = names(many, search=word, sort=sort)
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 0)
    assert names(many, search=word, sort=sort) == looked_through


@pytest.mark.parametrize("nearest", [1, 4, 5, 11, 12])
@pytest.mark.parametrize("show", ["", "block", "unattached"])
@pytest.mark.parametrize("search", ["policy example", "example octo-org", "kept policy", "policy-1 example 443"])
def test_no_order_of_looking_hides_what_has_all_words(many, monkeypatch, search, show, nearest):
    looked_through = names(many, search=search, show=show, sort="-name")
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 0)
    monkeypatch.setattr(finding, "FEW", 0)
    monkeypatch.setattr(finding, "NEAREST", nearest)
    assert names(many, search=search, show=show, sort="-name") == looked_through


@pytest.mark.parametrize("word", ["policy-1", "example", "p", "quay"])
def test_more_is_looked_through_for_what_is_not_rare(many, monkeypatch, word):
    looked_through = names(many, search=word)
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 3)
    monkeypatch.setattr(finding, "NOT_RARE", 1)
    assert names(many, search=word) == looked_through


@pytest.mark.parametrize("word", ["policy-11", "DEPLOY.yml", "größe", "ß", "100%"])
def test_the_index_finds_something(many, monkeypatch, word):
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 0)
    assert 0 < len(names(many, search=word)) < 12


@pytest.mark.parametrize("few", [0, 2000])
@pytest.mark.parametrize("show", ["block", "unattached", "risky"])
def test_a_word_and_a_counter_narrow_together(many, monkeypatch, show, few):
    factories.policy(many, "quay-audit", AUDIT)
    looked_through = names(many, search="quay", show=show)
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 0)
    monkeypatch.setattr(finding, "FEW", few)
    assert names(many, search="quay", show=show) == looked_through


@pytest.mark.parametrize("show", queries.SHOW_FILTERS)
@pytest.mark.parametrize("sort", ["changed", "-name", "endpoints", "-attached"])
def test_what_is_rare_is_found_in_the_same_order(many, monkeypatch, show, sort):
    factories.policy(many, "risky", RISKY)
    factories.policy(many, "audit", AUDIT)
    looked_through = names(many, show=show, sort=sort)
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 0)
    assert names(many, show=show, sort=sort) == looked_through


@pytest.mark.parametrize("sort", ["endpoints", "-endpoints", "attached", "-attached"])
def test_pages_go_on_within_what_is_equal(many, sort):
    assert sorted(names(many, sort=sort)) == sorted(f"policy-{number}" for number in range(12))


def test_pages_go_back_within_what_is_equal(many):
    first = queries.list_page(many, sort="endpoints", size=5)
    second = queries.list_page(many, sort="endpoints", size=5, after=first.next_cursor)
    again = queries.list_page(many, sort="endpoints", size=5, before=second.previous_cursor)
    assert [row.policy for row in again.rows] == [row.policy for row in first.rows]


def test_the_index_follows_what_is_changed(organization, monkeypatch):
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 0)
    policy = factories.policy(organization, "ci")
    policies.update(
        policy=policy, name="ci", description="walrus", text=policy.text, expected_version=policy.version, by=ANN
    )
    assert names(organization, search="walrus") == ["ci"]
    # As the previous release may write it, which knows of no index.
    Policy.objects.filter(pk=policy.pk).update(search_text="ci\notter")
    assert (names(organization, search="walrus"), names(organization, search="otter")) == ([], ["ci"])
    exceptions.AddException(
        policy=Policy.objects.get(),
        endpoint="lynx.example:443",
        reason="x",
        expires_at=timezone.now() + timedelta(days=1),
    ).apply(by=ANN)
    assert names(organization, search="lynx") == ["ci"]
    attach(organization, "ci", Scope.for_repository("octo-org", "badger"))
    assert names(organization, search="badger") == ["ci"]
    attachments.detach_all(policy=policy, by=ANN)
    assert names(organization, search="badger") == []
    policies.delete(policy=policy, by=ANN)
    factories.policy(organization, "other")
    assert names(organization, search="lynx") == []


def test_counters_follow_every_change(organization):
    other = factories.organization("other-org")
    factories.policy(other, "theirs", RISKY)
    ci = factories.policy(organization, "ci")
    factories.policy(organization, "audit", AUDIT)
    assert queries.counters(organization) == queries.Counters(total=2, block=1, audit=1, unattached=2, risky=0)
    attach(organization, "ci", Scope.for_repository("octo-org", "a"), Scope.for_repository("octo-org", "b"))
    assert queries.counters(organization).unattached == 1
    policies.update(policy=ci, name="ci", description="", text=RISKY, expected_version=1, by=ANN)
    assert queries.counters(organization) == counted(organization)
    assert queries.counters(organization).risky == 1
    assert counting.fold() > 0
    assert PolicyCount.objects.filter(organization=organization).count() == 1
    assert queries.counters(organization) == counted(organization)
    policies.delete(policy=ci, by=ANN)
    assert queries.counters(organization) == queries.Counters(total=1, block=0, audit=1, unattached=1, risky=0)
    assert queries.counters(other) == queries.Counters(total=1, block=1, audit=0, unattached=1, risky=1)
    assert counting.fold() > 0
    assert counting.fold() == 0


def test_what_the_previous_release_writes_is_counted(organization):
    policy = factories.policy(organization, "ci")
    Policy.objects.filter(pk=policy.pk).update(egress_policy="audit", attachment_count=3, risk_count=2)
    assert queries.counters(organization) == queries.Counters(total=1, block=0, audit=1, unattached=0, risky=1)
    Policy.objects.all().delete()
    assert queries.counters(organization) == queries.Counters(0, 0, 0, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_what_a_migration_drops_is_made_again(organization, monkeypatch):
    """As SQLite's way to alter a table does."""
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 0)
    policy = factories.policy(organization, "ci")
    suffix = "" if connection.vendor == "sqlite" else " ON policies_policy"
    names_ = {"sqlite": ("policies_policy_search_update", "policies_policy_counts_update")}.get(
        connection.vendor, ("policies_policy_grams", "policies_policy_recounted")
    )
    with connection.cursor() as cursor:
        for name in names_:
            cursor.execute(f"DROP TRIGGER {name}{suffix}")
    policies.update(policy=policy, name="ci", description="walrus", text=AUDIT, expected_version=1, by=ANN)
    assert (names(organization, search="walrus"), queries.counters(organization).audit) == ([], 0)
    mend_derived(using="default")
    assert (names(organization, search="walrus"), queries.counters(organization).audit) == (["ci"], 1)
    assert queries.counters(organization) == counted(organization)


def test_after_all_migrations_nothing_of_it_is_missing(django_assert_num_queries):
    assert apps.get_model("policies", "Policy") is Policy
    with django_assert_num_queries(2):
        # It looks whether the tables are there, whether they are whole, and makes nothing.
        mend_derived(using="default")


def test_no_more_of_an_index_is_walked_than_is_looked_through(many, monkeypatch):
    """Where little is found, databases would else go on to its end."""
    monkeypatch.setattr(finding, "ROWS_LOOKED_THROUGH", 3)
    monkeypatch.setattr(finding, "FEW", 0)
    _, walk, _, rare = plans(lambda: queries.list_page(many, search="xylophone", show="block", sort="endpoints"))
    assert {"sqlite": "endpoint_count<?", "postgresql": "(ROW(endpoint_count, id) < "}[connection.vendor] in walk
    assert "policy_by_mode" not in rare


def test_what_is_shown_is_walked_in_each_order(organization):
    """Else a page is looked for through most of the table where all that blocks is named alike."""
    one = factories.policy(organization, "policy", RISKY)
    Policy.objects.bulk_create(named_alike(one, number) for number in range(3000))
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE policies_policy")
    # PostgreSQL is told parameters apart, and then does not know which rows an index of some has.
    for show in ("unattached", "risky"):
        assert Policy.objects.filter(queries.SHOW_FILTERS[show]).query.sql_with_params()[1] == ()
    for (show, column), index in WALKED.items():
        for sort in (column, f"-{column}"):
            chosen = {"show": show, "sort": sort}
            cursor = queries.list_page(organization, **chosen).next_cursor
            for place in ({}, {"after": cursor}, {"before": cursor}):
                page, *_ = plans(lambda chosen=chosen, place=place: queries.list_page(organization, **chosen, **place))
                assert index in page, (chosen, place)
                assert "TEMP B-TREE" not in page, (chosen, place)
                assert "Sort" not in page, (chosen, place)


def named_alike(policy, number):
    """Another policy: of a thousand that block, of a thousand attached to nothing, or of a thousand risky ones."""
    kind, name = number // 1000, f"{number:05}"
    return Policy(
        **{field.attname: getattr(policy, field.attname) for field in Policy._meta.fields if not field.primary_key}
        | {
            "name": name,
            "name_key": name,
            "egress_policy": "block" if kind == 0 else "audit",
            "attachment_count": 0 if kind == 1 else 1 + number % 5,
            "risk_count": 1 if kind == 2 else 0,
            "endpoint_count": number % 50,
        }
    )


def test_a_search_is_a_constant_number_of_queries(many, django_assert_max_num_queries):
    for word in ("policy", "xylophone", "po", "!", "policy quay example"):
        with django_assert_max_num_queries(8):
            queries.list_page(many, search=word, show="block")


@pytest.mark.parametrize(
    ("search", "looked_up"),
    {
        "policy-1 quay": "quay",
        "registry.octo1.org:443 example": "registry.octo1.org:443",
        "policy deploy": "deploy",
        "policy zebra": "zebra",
        "policy policy-1": "policy-1",
        "policies example": "policies",
        "!": "!",
    }.items(),
)
def test_of_several_words_the_rarest_is_looked_up(many, search, looked_up):
    assert finding._rarest_first(finding._counted(search.split()))[0] == looked_up


def test_of_words_that_many_have_the_one_with_most_digits_is_looked_up_and_then_the_longest(many, monkeypatch):
    monkeypatch.setattr(finding, "MANY", 1)
    counted = finding._counted(["443", "example", "policy-1", "policy"])
    assert finding._rarest_first(counted) == ["443", "policy-1", "example", "policy"]


@given(st.text(max_size=40))
def test_the_runs_that_are_looked_up_have_every_character_of_a_word_that_has_a_run(word):
    runs, covering = grams.of_word(word), grams.covering(word)
    assert set(covering) <= set(runs)
    assert bool(covering) == bool(runs)
    if runs:
        assert set("".join(covering)) == set(word.lower())
        assert len(covering) <= len(word.lower()) // grams.GRAM + 1


@pytest.mark.parametrize(
    ("word", "runs"),
    {
        "shop-000043": ["000", "004", "043", "-00"],
        "10.20.30.40:443": ["443", ".20", ".30", ".40", "0.2"],
        "policy-09": ["-09", "icy", "pol"],
        "registry.example.org:443": grams.covering("registry.example.org:443"),
        "é": [],
    }.items(),
)
def test_numbers_tell_names_apart(word, runs):
    assert grams.telling(word) == runs
    assert set(runs) <= set(grams.of_word(word))
