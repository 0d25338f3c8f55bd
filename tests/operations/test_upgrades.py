"""The previous release's code runs against the new schema, so that an upgrade needs no pause.

Migrations after RELEASED may only add; what else one does must stand among JUDGED, with the reason why it does no harm.
"""

import pytest
from django.db import connection, migrations
from django.db.migrations.loader import MigrationLoader
from django.db.models import NOT_PROVIDED
from django.utils import timezone

from tests.operations.previous_release import RELEASED

pytestmark = pytest.mark.django_db

JUDGED = {
    ("accounts", "0002_sealed_events", "AddConstraint"): "of a new column, which old code leaves null",
    ("policies", "0005_chain_of_history", "AddConstraint"): "of a new column, which old code leaves null",
    ("runners", "0004_last_fetch", "RunSQL"): "fills a table that this release adds, from rows that it leaves alone",
    (
        "policies",
        "0017_fast_list",
        "RunPython",
    ): "fills tables that this release adds; triggers keep what old code writes",
}
# What changes nothing that statements of the previous release could notice.
HARMLESS = (
    migrations.CreateModel,
    migrations.AddIndex,
    migrations.RemoveIndex,
    migrations.AlterModelOptions,
    migrations.AlterModelManagers,
)


@pytest.fixture(scope="module")
def loader():
    return MigrationLoader(None, ignore_no_migrations=True)


def since(loader):
    """The migrations of the store's own apps that the last release did not have, oldest first."""
    released = {key for app, name in RELEASED.items() for key in loader.graph.forwards_plan((app, name))}
    own = [key for key in loader.disk_migrations if loader.disk_migrations[key].__module__.startswith("policystore.")]
    ordered = list(dict.fromkeys(key for leaf in sorted(own) for key in loader.graph.forwards_plan(leaf)))
    return [key for key in ordered if key in own and key not in released]


def harm_of(operation, before, app):
    """Why the previous release might not bear this operation; None where it does. `before` is the state before it."""
    if isinstance(operation, HARMLESS):
        return None
    judge = next((JUDGES[kind] for kind in type(operation).__mro__ if kind in JUDGES), None)
    return judge(operation, before, app) if judge else f"{type(operation).__name__} is not one that only adds"


def _added_field(operation, before, app):
    field = operation.field
    if field.many_to_many or field.null or field.db_default is not NOT_PROVIDED or field.generated:
        return None
    return f"{operation.model_name}.{operation.name} has no db_default and is not null: old code cannot insert"


def _altered_field(operation, before, app):
    old = before.models[app, operation.model_name.lower()].fields[operation.name]
    new, name = operation.field, f"{operation.model_name}.{operation.name}"
    if old.db_column != new.db_column or old.get_internal_type() != new.get_internal_type():
        return f"{name} gets another column or type"
    if old.null and not new.null:
        return f"{name} may no longer be null"
    if (new.max_length or 0) < (old.max_length or 0):
        return f"{name} becomes shorter"
    return f"{name} becomes unique" if new.unique and not old.unique else None


def _added_constraint(operation, before, app):
    return f"{operation.constraint.name} may refuse what old code writes"


def _database_part(operation, before, app):
    harms = [harm_of(part, before, app) for part in operation.database_operations]
    return next(filter(None, harms), None)


JUDGES = {
    migrations.AddField: _added_field,
    migrations.AlterField: _altered_field,
    migrations.AddConstraint: _added_constraint,
    migrations.SeparateDatabaseAndState: _database_part,
}


def harms(loader, key):
    """What is wrong with one migration, and has not been judged."""
    migration, found = loader.disk_migrations[key], []
    state = loader.project_state(key, at_end=False)
    created = set()
    for operation in migration.operations:
        if isinstance(operation, migrations.CreateModel):
            created.add(operation.name_lower)
        of_new_table = getattr(operation, "model_name", "").lower() in created
        harm = None if of_new_table else harm_of(operation, state, key[0])
        if harm and (*key, type(operation).__name__) not in JUDGED:
            found.append(f"{key[0]}.{key[1]}: {harm}")
        operation.state_forwards(key[0], state)
    return found


def test_migrations_since_the_last_release_only_add(loader):
    newer = since(loader)
    assert newer
    assert [harm for key in newer for harm in harms(loader, key)] == []


def test_what_was_judged_is_there(loader):
    there = {(*key, type(part).__name__) for key in since(loader) for part in loader.disk_migrations[key].operations}
    assert set(JUDGED) <= there


@pytest.mark.parametrize(
    "operation",
    [
        migrations.RemoveField("organization", "login"),
        migrations.RenameField("organization", "login", "name"),
        migrations.DeleteModel("organization"),
        migrations.RenameModel("organization", "owner"),
        migrations.AlterModelTable("organization", "owners"),
        migrations.RunSQL("DROP TABLE inventory_organization"),
        migrations.RunPython(migrations.RunPython.noop),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_what_takes_something_away_is_found(loader, operation):
    state = loader.project_state(("inventory", "0001_initial"))
    assert harm_of(operation, state, "inventory")
    hidden = migrations.SeparateDatabaseAndState(database_operations=[operation])
    assert harm_of(hidden, state, "inventory")


def released_state(loader):
    return loader.project_state(list(RELEASED.items())).apps


def test_every_column_that_the_last_release_does_not_know_fills_itself(loader):
    known = {
        model._meta.db_table: {field.column for field in model._meta.local_concrete_fields}
        for model in released_state(loader).get_models(include_auto_created=True)
        if model._meta.app_label in RELEASED
    }
    assert "policies_historyevent" in known
    with connection.cursor() as cursor:
        for table, columns in known.items():
            there = {column.name: column for column in connection.introspection.get_table_description(cursor, table)}
            assert columns - set(there) == set(), f"{table} lost columns"
            demanding = [
                name for name in set(there) - columns if not there[name].null_ok and there[name].default is None
            ]
            assert demanding == [], table


def test_statements_of_the_last_release_do_their_work_on_the_new_schema(loader):
    def old(app, name):
        return released_state_apps.get_model(app, name)

    released_state_apps, now = released_state(loader), timezone.now()
    organization = old("inventory", "Organization").objects.create(login="Octo-Org", key="octo-org")
    policy = old("policies", "Policy").objects.create(
        organization=organization, name="ci", name_key="ci", text="egress-policy: audit\n", reply="{}",
        egress_policy="audit", endpoint_count=0, search_text="ci", created_at=now, created_by="ann",
        changed_at=now, changed_by="ann",
    )  # fmt: skip
    old("policies", "Attachment").objects.create(
        policy=policy, organization=organization, scope_key="organization:octo-org", scope_type="organization",
        attached_at=now, attached_by="ann",
    )  # fmt: skip
    event = old("policies", "HistoryEvent").objects.create(
        owner="octo-org", policy_id=policy.pk, policy_name="ci", kind="created", actor="ann", actor_kind="user",
        at=now, version=1,
    )  # fmt: skip
    run = old("runners", "JobRun").objects.create(
        organization=organization, repository="r", correlation_id="c", first_seen_at=now, policy_id=policy.pk
    )
    old("traffic", "NetworkEvent").objects.create(
        organization=organization, job_run=run, digest="d", kind="connection", host="a.example", port=443,
        status="allowed", occurred_at=now, received_at=now,
    )  # fmt: skip
    old("accounts", "AccountEvent").objects.create(owner="octo-org", kind="key made", actor="ann", subject="vm")
    old("policies", "Policy").objects.filter(pk=policy.pk).update(version=2)
    assert old("policies", "HistoryEvent").objects.get(pk=event.pk).policy_name == "ci"
    assert old("policies", "Policy").objects.select_related("organization").get().organization.login == "Octo-Org"
    policy.delete()
    assert not old("policies", "Attachment").objects.exists()
