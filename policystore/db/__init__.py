"""Database helpers that do not depend on what is stored."""
