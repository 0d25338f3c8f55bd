"""Operations of migrations that change tables in use without holding up who reads or writes them.

PostgreSQL builds and drops an index concurrently only outside a transaction, so a migration of these sets
`atomic = False`, and each of its operations may be repeated: a migration that was cut off is simply run again.
What these migrations leave behind is what Django's operations of the same names would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import ProjectState
from django.db.models import Index, Model

_IS_PARTITIONED = "SELECT 1 FROM pg_partitioned_table WHERE partrelid = to_regclass(%s)"
# An index that lacks its last step after a build that was cut off; it is kept up to date and never used.
_IS_VALID = "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(%s)"


class AddIndex(migrations.AddIndex):
    """Builds an index while others write the table; an index of the name that is there is left as it is."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            _build(schema_editor, model, self.index)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            _drop(schema_editor, model, self.index)


class RemoveIndex(migrations.RemoveIndex):
    """Drops an index while others use the table; one that is gone already is no error."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            _drop(schema_editor, model, _named(from_state, app_label, self.model_name_lower, self.name))

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            _build(schema_editor, model, _named(to_state, app_label, self.model_name_lower, self.name))


class AddField(migrations.AddField):
    """Adds a column that has a default in the database or may be null, beside operations that have no transaction.

    It has one of its own, since SQLite makes the whole table anew; a column that is there already is left alone.
    """

    atomic = True

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if model._meta.get_field(self.name).column not in _columns(schema_editor, model):
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class LoosenKey(migrations.AlterField):
    """Takes from a foreign key its index (`db_index=False`) or the database's check of it (`db_constraint=False`), and
    leaves the table's rows alone; what is gone already is no error.

    SQLite checks on: it would have to make the whole table anew, as Django does with a field that is altered.
    """

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        field: Any = model._meta.get_field(self.name)
        if not field.db_index:
            for name in _of_column(schema_editor, model, field.column, "index"):
                _drop(schema_editor, model, Index(fields=[self.name], name=name))
        if not field.db_constraint and schema_editor.connection.vendor != "sqlite":
            for name in _of_column(schema_editor, model, field.column, "foreign_key"):
                names = (schema_editor.quote_name(part) for part in (model._meta.db_table, name))
                schema_editor.execute("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}".format(*names))

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        super().database_forwards(app_label, schema_editor, from_state, to_state)


def _of_column(schema_editor: BaseDatabaseSchemaEditor, model: type[Model], column: str, kind: str) -> list[str]:
    """The names of a column's own indexes that are not unique (`index`), or of its foreign keys (`foreign_key`)."""
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        found: Mapping[str, Any] = connection.introspection.get_constraints(cursor, model._meta.db_table)
    return [name for name, told in found.items() if told[kind] and told["columns"] == [column] and not told["unique"]]


def _named(state: ProjectState, app_label: str, model_name: str, name: str) -> Index:
    index: Index = state.models[app_label, model_name].get_index_by_name(name)
    return index


def _columns(schema_editor: BaseDatabaseSchemaEditor, model: type[Model]) -> set[str]:
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        return {column.name for column in connection.introspection.get_table_description(cursor, model._meta.db_table)}


def _build(schema_editor: Any, model: type[Model], index: Index) -> None:
    if _concurrent(schema_editor, model):
        valid = _is_valid(schema_editor, index)
        if valid is False:
            _drop(schema_editor, model, index)
        if not valid:
            schema_editor.add_index(model, index, concurrently=True)
    elif not _is_there(schema_editor, model, index):
        schema_editor.add_index(model, index)


def _drop(schema_editor: Any, model: type[Model], index: Index) -> None:
    if _concurrent(schema_editor, model):
        schema_editor.remove_index(model, index, concurrently=True)
    elif _is_there(schema_editor, model, index):
        schema_editor.remove_index(model, index)


def _concurrent(schema_editor: BaseDatabaseSchemaEditor, model: type[Model]) -> bool:
    """True if PostgreSQL can build or drop the index concurrently: not in a transaction, nor on a partitioned table."""
    connection = schema_editor.connection
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        return False
    with connection.cursor() as cursor:
        cursor.execute(_IS_PARTITIONED, [schema_editor.quote_name(model._meta.db_table)])
        return not cursor.fetchone()


def _is_valid(schema_editor: BaseDatabaseSchemaEditor, index: Index) -> bool | None:
    """Whether the index can be used; None where there is none."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(_IS_VALID, [schema_editor.quote_name(index.name)])
        row = cursor.fetchone()
    return row[0] if row else None


def _is_there(schema_editor: BaseDatabaseSchemaEditor, model: type[Model], index: Index) -> bool:
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        return index.name in connection.introspection.get_constraints(cursor, model._meta.db_table)
