"""Cluster base addresses: every `/v1/…` route also answers at `/v1/clusters/NAME/…`.

No public client sends the name of its cluster, but each appends its paths to the base address that it is given. The
name is no secret, because the job hooks print the address in the job's log: it grants nothing that the same route
without it would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from policystore.policy_language.scopes import is_cluster_name

PREFIX = "/v1/clusters/"
CLUSTER = "policystore.cluster"

Environ = dict[str, Any]


class ClusterAddress:
    """A WSGI application that hands every request on as `without_cluster` returns it."""

    def __init__(self, application: Callable[[Environ, Callable[..., Any]], Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self._application(without_cluster(environ), start_response)


def without_cluster(environ: Environ) -> Environ:
    """Move the cluster's name from the path to `environ["policystore.cluster"]`, in a copy.

    A path without a valid name is returned as it is; no route matches it. The original keeps its path for the request
    log.
    """
    path = environ.get("PATH_INFO", "")
    if not path.startswith(PREFIX):
        return environ
    name, slash, rest = path[len(PREFIX) :].partition("/")
    if not is_cluster_name(name):
        return environ
    return {**environ, "PATH_INFO": f"/v1{slash}{rest}", CLUSTER: name}


def cluster_of(environ: Mapping[str, Any], named: str = "") -> str:
    """The cluster of a request: the one in its address, else `named` (the `cluster` parameter), else empty."""
    cluster: str = environ.get(CLUSTER) or named
    return cluster
