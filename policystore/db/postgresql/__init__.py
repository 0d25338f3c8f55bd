"""Django's backend for PostgreSQL, for servers that allow fewer connections than there are processes."""
