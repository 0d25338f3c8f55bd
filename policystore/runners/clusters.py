"""Clusters: base addresses that name one, and API keys that are limited to some.

Every `/v1/…` route also answers at `/v1/clusters/NAME/…`. No public client sends the name of its cluster, but each
appends its paths to the base address that it is given. The name is not a secret, because the job hooks print the
address in the job's log: it grants nothing that the same route without it would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from policystore.accounts import api_keys
from policystore.accounts.models import ApiKey
from policystore.policy_language.scopes import is_cluster_name
from policystore.web.json_api import Refused, Reply, refusal

PREFIX = "/v1/clusters/"
ENVIRON_KEY = "policystore.cluster"
MAX_NAME_SHOWN = 100
MAX_CLUSTERS_SHOWN = 5

Environ = dict[str, Any]


class ClusterAddress:
    """A WSGI application that passes every request on as `without_cluster` returns it."""

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
    return {**environ, "PATH_INFO": f"/v1{slash}{rest}", ENVIRON_KEY: name}


def cluster_of(environ: Mapping[str, Any], parameter: str = "") -> str:
    """Return the cluster in a request's address, else `parameter` (the `cluster` parameter), else an empty text."""
    cluster: str = environ.get(ENVIRON_KEY) or parameter
    return cluster


def require_cluster(key: ApiKey, cluster: str) -> None:
    """Raise Refused, with 403, if the key is limited to other clusters; an empty `cluster` names none."""
    if not api_keys.allows_cluster(key.clusters, cluster):
        raise Refused(outside_limit(key.clusters, cluster))


def outside_limit(clusters: str, cluster: str) -> Reply:
    """403 for a key that is limited to `clusters` (names separated by spaces) and is used for another, or for none."""
    names = clusters.split()
    named = f"for cluster “{cluster.strip()[:MAX_NAME_SHOWN]}”" if cluster.strip() else "without a cluster"
    limit = ", ".join(names[:MAX_CLUSTERS_SHOWN]) + (", …" if len(names) > MAX_CLUSTERS_SHOWN else "")
    return refusal(
        403,
        "cluster_not_allowed",
        f"This API key cannot be used {named}. It is limited to {limit}."
        f" Send the request to the base address of one of these clusters, for example {PREFIX}{names[0]}.",
    )
