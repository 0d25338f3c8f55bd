"""Makes what tests need, through the store's own actions."""

from __future__ import annotations

from policystore.accounts import api_keys
from policystore.accounts.models import SYSTEM, KeyKind, KeySlot, Membership, User
from policystore.accounts.roles import Role
from policystore.integrations import actions, event_catalog
from policystore.inventory import actions as inventory
from policystore.policies import endpoint_sets
from policystore.policies.approvals import commands
from policystore.policies.core import actions as policies

TEXT = "egress-policy: block\nallowed-endpoints: >\n  github.com:443\n  api.github.com:443\n"


def organization(login="octo-org"):
    return inventory.add_organization(login=login)


def user(username="ann", **values):
    return User.objects.create(username=username, **values)


def member(organization, role=Role.SECURITY_ADMIN, username="ann"):
    person = User.objects.filter(username=username).first() or user(username)
    Membership.objects.create(user=person, organization=organization, role=role)
    return person


def four_eyes_on(organization, by=SYSTEM):
    """Turn on four eyes, with two members who may approve."""
    for username in ("first-approver", "second-approver"):
        member(organization, Role.SECURITY_ADMIN, username)
    commands.switch_on_four_eyes(organization=organization, by=by)


def api_key(organization, kind="vm", slot="primary"):
    return api_keys.regenerate(organization=organization, kind=KeyKind(kind), slot=KeySlot(slot), by=SYSTEM)


def management_key(organization, name="terraform"):
    return api_keys.create_management(organization=organization, name=name, by=SYSTEM)


def policy(organization, name="baseline", text=TEXT, **values):
    return policies.create(organization=organization, name=name, text=text, by=SYSTEM, **values)


def endpoint_set(organization, name="npm", text="registry.octo1.org:443\nregistry.yarnpkg.com:443\n", **values):
    return endpoint_sets.create(organization=organization, name=name, text=text, by=SYSTEM, **values)


def integration(organization, kind="webhook", name="siem", config=None, secrets=None, chosen=None):
    """An integration that wants every event, unless told which."""
    return actions.create(
        organization=organization,
        kind=kind,
        name=name,
        events=list(event_catalog.EVENTS) if chosen is None else chosen,
        config=config or {"address": "https://hooks.example.com/store", "method": "POST", "raw": False},
        secrets=secrets or {"signing": actions.new_signing_secret()},
        by=SYSTEM,
    )
