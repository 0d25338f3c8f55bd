"""How the database finds what is asked of it."""

from django.db import connection
from django.test.utils import CaptureQueriesContext


def plans(read):
    """How the database finds what each statement of this asks for, as text."""
    with CaptureQueriesContext(connection) as captured, connection.cursor() as cursor:
        read()
        explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[connection.vendor]
        if connection.vendor == "postgresql":
            # It would read a table as small as this one from end to end.
            cursor.execute("SET LOCAL enable_seqscan = off")
        statements = [query["sql"] for query in captured.captured_queries if query["sql"].startswith("SELECT")]
        return ["\n".join(str(row[-1]) for row in cursor.execute(f"{explain} {sql}") or cursor) for sql in statements]
