"""Refuses API keys outside the clusters that they are limited to."""

from __future__ import annotations

from policystore.accounts import api_keys
from policystore.accounts.models import ApiKey
from policystore.runners.cluster_address import PREFIX
from policystore.runners.http import Refused
from policystore.runners.responses import Reply, refusal

NAME_SHOWN = 100
CLUSTERS_SHOWN = 5


def require_cluster(key: ApiKey, cluster: str) -> None:
    """Raise Refused, with 403, if the key is limited to other clusters; an empty `cluster` names none."""
    if not api_keys.allows_cluster(key.clusters, cluster):
        raise Refused(outside_limit(key.clusters, cluster))


def outside_limit(clusters: str, cluster: str) -> Reply:
    """403 for a key that is limited to `clusters` (names separated by spaces) and is used for another, or for none."""
    names = clusters.split()
    named = f"for cluster “{cluster.strip()[:NAME_SHOWN]}”" if cluster.strip() else "without a cluster"
    limit = ", ".join(names[:CLUSTERS_SHOWN]) + (", …" if len(names) > CLUSTERS_SHOWN else "")
    return refusal(
        403,
        "cluster_not_allowed",
        f"This API key cannot be used {named}. It is limited to {limit}."
        f" Send the request to the base address of one of these clusters, for example {PREFIX}{names[0]}.",
    )
