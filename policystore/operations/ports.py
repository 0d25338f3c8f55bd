"""Check that a port is free before a server starts on it."""

from __future__ import annotations

import socket

from django.core.management.base import CommandError


def refuse_taken(host: str, port: int, *, option: str) -> None:
    """Raise CommandError, which names the option for the port, if nothing can listen at this host and port."""
    if not 0 < port < 65536:
        raise CommandError(f"“{port}” is not a valid port. Choose one from 1 to 65535, for example {option} 8001.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do; without it, the connections of an earlier process would make its port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, TypeError, UnicodeError) as error:
            raise CommandError(
                f"Cannot listen on {host}:{port} ({error}). Choose another port with {option}."
            ) from error
