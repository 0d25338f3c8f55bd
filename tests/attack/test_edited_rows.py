"""Edits of single values past Policy Store, in every table that decides what runners get: each one is reported."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from time import monotonic

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from policystore.accounts.models import Actor, ApiKey
from policystore.audit_log.models import IntegrityProblem
from policystore.integrity.comparing import Comparison, Watch
from policystore.inventory.models import Organization
from policystore.policies import break_glass, exceptions, never_allow
from policystore.policies import staging as staged
from policystore.policies.approvals import commands
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import (
    Attachment,
    BreakGlass,
    CanaryScope,
    EndpointSet,
    EndpointSetUse,
    FourEyes,
    NeverAllowHost,
    Policy,
    PolicyException,
    StagedVersion,
)
from policystore.policy_language.scopes import Scope
from policystore.runners import blocklist
from policystore.runners.models import BlocklistEntry
from tests import factories

ANN = Actor("ann")
BATCH, EDITS = 50, 1_000


def fill(login, *, number=8):
    """An organization with some of everything that decides what its runners get, and some that no other has."""
    organization = factories.organization(login)
    for name in ("npm", f"only-{login}"):
        factories.endpoint_set(organization, name, f"registry.{name}1.org:443\n")
    for index in range(number):
        fill_policy(organization, index)
    for host in ("evil.example", f"*.{login}.example"):
        never_allow.add(organization=organization, host=host, reason="Known to be bad", by=ANN)
        blocklist.add(organization=organization, endpoint=f"x.{host.removeprefix('*.')}", reason="Malware", by=ANN)
    for file_name in ("ci.yml", "release.yml"):
        scope = Scope.for_workflow(login, "app0", file_name)
        begun = break_glass.start(organization=organization, scope=scope, hours=4, reason="An incident", by=ANN)
    break_glass.end(break_glass=begun, by=ANN)
    for kind in ("vm", "arc", "arc"):
        factories.api_key(organization, kind)
    factories.management_key(organization)
    for number in (1, 2):
        factories.member(organization, username=f"admin{number}")
    commands.LimitFourEyesToKeys(organization=organization).apply(by=ANN)
    return organization


def fill_policy(organization, index):
    login, name = organization.login, f"policy-{index}"
    mode, include = ("block", "audit")[index % 2], "endpoint-sets: npm\n" if index % 3 == 0 else ""
    text = f"egress-policy: {mode}\n{include}allowed-endpoints: >\n  github.com:443\n  host{index}.octo.org:443\n"
    policy = factories.policy(organization, name, text)
    scopes = [Scope.for_repository(login, f"app{index}"), Scope.for_workflow(login, f"app{index}", "ci.yml")]
    attachments.ModifyAttachments(policy=policy, add=scopes).apply(by=ANN)
    if index % 2:
        policies.UpdatePolicy(policy=policy, name=name, description="", text=f"{text}# 2\n", expected_version=1).apply(
            by=ANN
        )
    if index % 4 == 1:
        policy.refresh_from_db()
        version = staged.StageVersion(
            policy=policy, text=text.replace("audit", "block"), live_version=policy.version, expected_event=None
        ).apply(by=ANN)
        staged.SetCanaries(policy=policy, scopes=scopes[:1], expected_event=version.event_id).apply(by=ANN)
    if index % 3 == 2:
        for host in ("added", "ended"):
            until = timezone.now() + timedelta(days=3)
            added = exceptions.AddException(
                policy=policy, endpoint=f"{host}{index}.octo.org:443", reason="Needed", expires_at=until
            ).apply(by=ANN)
        exceptions.end(exception=added, by=ANN)


@dataclass(frozen=True)
class Column:
    """A column that can be edited; `key` is how a report names its row."""

    model: type
    name: str
    key: str = "pk"

    def __str__(self):
        return f"{self.model.__name__}.{self.name}"


def _columns(model, key, *names):
    return [Column(model, name, key) for name in names]


COLUMNS = [
    *_columns(Policy, "name", "organization_id", "name", "name_key", "description", "text", "version", "reply"),
    *_columns(Policy, "name", "egress_policy", "endpoint_count", "open_exceptions", "attachment_count", "search_text"),
    *_columns(Attachment, "scope_key", "policy_id", "organization_id", "scope_key", "scope_type"),
    *_columns(StagedVersion, "policy__name", "text", "reply", "egress_policy", "endpoint_count"),
    *_columns(StagedVersion, "policy__name", "based_on_version", "event_id"),
    *_columns(CanaryScope, "scope_key", "staged_id", "scope_key"),
    *_columns(PolicyException, "pk", "policy_id", "organization_id", "endpoint", "added_at", "expires_at", "ended_at"),
    *_columns(BreakGlass, "pk", "organization_id", "scope_key", "started_at", "ends_at", "ended_at"),
    *_columns(EndpointSet, "name", "organization_id", "name", "name_key", "description", "text", "endpoints"),
    *_columns(EndpointSet, "name", "endpoint_count", "version"),
    *_columns(EndpointSetUse, "endpoint_set__name_key", "policy_id", "endpoint_set_id"),
    *_columns(NeverAllowHost, "host", "organization_id", "host", "reason"),
    *_columns(BlocklistEntry, "endpoint", "organization_id", "kind", "endpoint", "reason"),
    *_columns(ApiKey, "pk", "organization_id", "kind", "slot", "name", "digest", "revoked_at", "clusters"),
    *_columns(FourEyes, "organization__key", "keys_alone"),
    *_columns(Organization, "key", "key", "login"),
]
WORDS = ("alpha", "beta", "gamma", "delta")
REPLIES = ("{}", "", "null", '{"policy_name":"", "egress_policy":"audit","allowed_endpoints":[]}', "{broken")
OTHERS = {
    "organization_id": lambda _: Organization.objects.values_list("pk", flat=True),
    "policy_id": lambda _: Policy.objects.values_list("pk", flat=True),
    "staged_id": lambda _: StagedVersion.objects.values_list("pk", flat=True),
    "endpoint_set_id": lambda _: EndpointSet.objects.values_list("pk", flat=True),
    "egress_policy": lambda _: ("audit", "block"),
    "scope_type": lambda _: ("workflow", "repository", "organization", "cluster"),
    "kind": lambda model: ("vm", "arc", "management") if model is ApiKey else ("ip_address", "domain"),
    "slot": lambda _: ("primary", "secondary", ""),
    "scope_key": lambda _: [f"repository:{login}/{word}" for login in ("octo-org", "hooli") for word in WORDS],
    "keys_alone": lambda _: (True, False),
    "reply": lambda model: (*REPLIES, *model.objects.values_list("reply", flat=True)),
    "endpoint": lambda model: [f"{word}.evil.org" + (":443" if model is PolicyException else "") for word in WORDS],
    "host": lambda _: [f"{word}.example" for word in WORDS],
    "endpoints": lambda _: [[f"{word}.evil.org:443"] for word in WORDS],
    "open_exceptions": lambda _: ('[["2031-01-01T00:00:00+00:00","evil.example:443"]]', "", "[]", "broken"),
    "text": lambda _: [f"egress-policy: audit # {word}\n" for word in WORDS],
    "digest": lambda _: [f"{number:064x}" for number in range(9)],
}


def other_value(column, value, chance):
    """A random value that the column can have and has not now."""
    if column.name in OTHERS:
        choices = list(OTHERS[column.name](column.model))
    elif column.name.endswith("_at"):
        now = timezone.now()
        choices = [now + timedelta(hours=hours, minutes=7) for hours in (-40, 30, 50)]
        if column.name in ("ended_at", "revoked_at"):
            # Only whether a key is revoked decides something, not when it was.
            choices = [None, *choices] if column.name == "ended_at" or value is None else [None]
    elif isinstance(value, int):
        choices = [value + number for number in (1, 2, 7)]
    else:
        choices = WORDS
    return chance.choice([choice for choice in choices if choice != value])


@dataclass(frozen=True)
class Edit:
    """One value that was changed, and how reports may name its row."""

    column: Column
    pk: int
    before: object
    names: tuple[str, ...]

    def undo(self):
        self.column.model._base_manager.filter(pk=self.pk).update(**{self.column.name: self.before})


def edit(column, chance, taken):
    """Change a random row's column, past every action; None where a constraint of the database refuses it."""
    rows = column.model._base_manager.all()
    pk = chance.choice(list(rows.exclude(pk__in=taken).values_list("pk", flat=True)))
    row = rows.filter(pk=pk)
    before, key = row.values_list(column.name, column.key).get()
    try:
        with transaction.atomic():
            row.update(**{column.name: other_value(column, before, chance)})
            if connection.vendor == "postgresql":
                connection.check_constraints()
    except IntegrityError:
        return None
    return Edit(column, pk, before, (str(key), str(row.values_list(column.key, flat=True).get())))


def look(watch):
    """What the worker has kept after its next pass."""
    watch._next_pass_at = 0
    while not watch():
        pass
    return [sentence for row in IntegrityProblem.objects.all() for sentence in row.problems]


def unreported(edits, watch):
    """The edits that the worker or the command do not name."""
    kept = look(watch)
    out = StringIO()
    with suppress(CommandError):
        call_command("verify_history", stdout=out)
    return [
        one
        for one in edits
        if not any(name in sentence for name in one.names for sentence in kept)
        or not any(name in out.getvalue() for name in one.names)
    ]


def undo(edits):
    for one in reversed(edits):
        one.undo()


@pytest.fixture(scope="module")
def filled(django_db_setup, django_db_blocker):
    """Two organizations, made once: what a test changes in them is rolled back after the test, and both at the end."""
    with django_db_blocker.unblock(), transaction.atomic():
        fill("octo-org")
        fill("hooli", number=4)
        yield
        transaction.set_rollback(True)


@pytest.fixture
def store(filled, db):
    """The two organizations of `filled`."""


def test_an_unchanged_store_has_nothing_to_report(store):
    assert [problem for part in Comparison().slices() for problem in part.problems] == []
    out = StringIO()
    call_command("verify_history", stdout=out)
    assert out.getvalue().endswith("What runners get is what the history recorded.\n")


def test_a_changed_value_is_reported_with_its_row_until_it_is_put_back(store):
    chance, watch = random.Random(1), Watch()
    look(watch)
    for column in COLUMNS:
        one = next(made for _ in range(200) if (made := edit(column, chance, ())))
        kept = look(watch)
        assert any(name in sentence for name in one.names for sentence in kept), (one, kept)
        one.undo()
        assert look(watch) == [], str(column)


def test_an_inclusion_of_the_same_name_in_another_organization_is_reported(store):
    use = EndpointSetUse.objects.filter(policy__organization__key="octo-org").first()
    theirs = EndpointSet.objects.get(organization__key="hooli", name_key="npm")
    watch = Watch()
    assert look(watch) == []
    EndpointSetUse.objects.filter(pk=use.pk).update(endpoint_set=theirs)
    moved = f"(stored: [{theirs.pk}], recorded: [{use.endpoint_set_id}])."
    assert [sentence for sentence in look(watch) if sentence.endswith(moved)]
    EndpointSetUse.objects.filter(pk=use.pk).update(endpoint_set=use.endpoint_set_id)
    EndpointSetUse.objects.create(policy=use.policy, endpoint_set=theirs)
    assert [sentence for sentence in look(watch) if f"[{use.endpoint_set_id}, {theirs.pk}]" in sentence]


def test_what_a_missing_organization_had_is_reported(store):
    Organization.objects.filter(key="hooli").update(key="gamma")
    sentences = {problem.sentence for part in Comparison().slices() for problem in part.problems}
    assert (
        "hooli: The blocklist entry x.evil.example is missing from the database, but the history has it." in sentences
    )
    assert "hooli: The never-allow host evil.example is missing from the database, but the history has it." in sentences


def test_random_edits_are_all_reported(store, full, tell):
    chance, watch, count, slowest, missed = random.Random(16), Watch(), 0, 0.0, []
    for _ in range((EDITS if full else BATCH) // BATCH):
        edits, taken = [], {}
        while len(edits) < BATCH:
            column = chance.choice(COLUMNS)
            rows = taken.setdefault(column.model, set())
            if len(rows) == column.model._base_manager.count():
                continue
            made = edit(column, chance, rows)
            if made is not None:
                rows.add(made.pk)
                edits.append(made)
        began = monotonic()
        missed += unreported(edits, watch)
        slowest = max(slowest, monotonic() - began)
        count += len(edits)
        undo(edits)
    tell(
        f"Edited rows: {count - len(missed)} of {count} random edits in {len(COLUMNS)} columns reported by the worker "
        f"and by verify_history; the slowest batch of {BATCH} took {slowest:.1f} s for both."
    )
    assert missed == []
    assert slowest < 60


@pytest.mark.parametrize("model", [Policy, Attachment, PolicyException, ApiKey, NeverAllowHost, BlocklistEntry])
def test_a_row_that_was_deleted_is_reported(store, model):
    column = next(column for column in COLUMNS if column.model is model)
    row = model._base_manager.order_by("pk").first()
    name = model._base_manager.filter(pk=row.pk).values_list(column.key, flat=True).get()
    row.delete()
    assert any(str(name) in problem.sentence for part in Comparison().slices() for problem in part.problems)


def test_a_row_that_was_put_in_is_reported(store):
    organization, policy = Organization.objects.get(key="octo-org"), Policy.objects.first()
    Attachment.objects.create(
        policy=policy,
        organization=organization,
        scope_key="organization:octo-org",
        scope_type="organization",
        attached_at=timezone.now(),
        attached_by="eve",
    )
    ApiKey.objects.create(organization=organization, kind="vm", hint="psk", digest="f" * 64, created_by="eve")
    sentences = [problem.sentence for part in Comparison().slices() for problem in part.problems]
    assert any("attachment organization:octo-org is in the database" in sentence for sentence in sentences)
    assert any("API key" in sentence for sentence in sentences)


def test_saving_a_policy_again_replaces_a_reply_that_was_changed(store):
    policy = Policy.objects.get(organization__key="octo-org", name="policy-0")
    Policy.objects.filter(pk=policy.pk).update(reply="{}")
    policy.refresh_from_db()
    saved = policies.UpdatePolicy(
        policy=policy,
        name=policy.name,
        description=policy.description,
        text=policy.text,
        expected_version=policy.version,
    ).apply(by=ANN)
    assert (saved.version, saved.listed_endpoints[0]) == (policy.version + 1, "github.com:443")
    assert [problem for part in Comparison().slices() for problem in part.problems] == []
