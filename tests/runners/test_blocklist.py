"""The global blocklist: one for each organization, and one that the operator keeps for all of them."""

import io

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import AccountEvent, Actor
from policystore.accounts.roles import Role
from policystore.runners import blocklist
from policystore.runners.blocklist import EndpointRefused
from policystore.runners.models import BlocklistEntry
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
LIST = "/v1/global-blocklist"
IPV6 = ["2001:db8::1", "::1", "::ffff:203.0.113.9", "[2001:db8::1]", "fe80::1%eth0", "2001:0DB8::0001"]


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def owner(organization):
    client = Client()
    client.force_login(factories.member(organization, Role.OWNER), backend="policystore.accounts.access.RoleBackend")
    return client


def page(client, data=None):
    address = reverse("runners-settings:blocklist", args=["octo-org"])
    return client.get(address) if data is None else client.post(address, data)


def served(**headers):
    answer = ask("GET", LIST, headers)
    assert answer.status == 200
    return sorted(entry["endpoint"] for entries in answer.json().values() for entry in entries)


def manage(*arguments):
    out = io.StringIO()
    call_command("blocklist", *arguments, stdout=out)
    return out.getvalue()


def test_it_is_served_in_the_agents_shape(organization):
    for endpoint, reason in (("203.0.113.9", "scanner"), ("Evil.example.", "exfiltration"), ("*.bad.example", "x")):
        blocklist.add(organization=organization, endpoint=endpoint, reason=reason, by=ANN)
    assert ask("GET", LIST).json() == {
        "ip_addresses": [{"endpoint": "203.0.113.9", "reason": "scanner"}],
        "domains": [{"endpoint": "evil.example", "reason": "exfiltration"}],
        "wildcard_domains": [{"endpoint": "*.bad.example", "reason": "x"}],
    }


def test_the_list_of_one_organization_is_not_served_to_another(organization):
    other = factories.organization("other")
    blocklist.add(organization=organization, endpoint="github.com", reason="ours", by=ANN)
    blocklist.add(organization=other, endpoint="evil.example", reason="theirs", by=ANN)
    assert served() == []
    assert served(authorization=f"vm-api-key {factories.api_key(other)}") == ["evil.example"]
    assert served(authorization=f"vm-api-key {factories.api_key(organization, kind='arc')}") == ["github.com"]
    assert served(authorization=f"Bearer {factories.management_key(organization)}") == ["github.com"]
    on_cluster = ask("GET", "/v1/clusters/prod-k8s/global-blocklist")
    assert on_cluster.json() == {"ip_addresses": [], "domains": [], "wildcard_domains": []}


def test_a_wrong_key_is_refused_and_does_not_get_a_shorter_list(organization):
    answer = ask("GET", LIST, {"authorization": "vm-api-key ps_vm_wrong"})
    assert (answer.status, answer.json()["error"]) == (401, "unauthorized")


def test_an_entry_for_everyone_is_served_to_everyone(organization):
    other = factories.organization("other")
    blocklist.add(organization=organization, endpoint="evil.example", reason="ours", by=ANN)
    assert "evil.example is blocked in every organization" in manage("add", "Evil.example", "--reason", "known host")
    assert served() == ["evil.example"]
    answer = ask("GET", LIST, {"authorization": f"vm-api-key {factories.api_key(organization)}"}).json()
    assert answer["domains"] == [{"endpoint": "evil.example", "reason": "known host"}]
    assert manage("list") == "evil.example  known host\n"
    for refused in (
        ("add", "evil.example", "--reason", "again"),
        ("add", "x", "--reason", "y"),
        ("remove", "x.example"),
    ):
        with pytest.raises(CommandError):
            manage(*refused)
    manage("remove", "evil.example")
    assert served() == []
    assert served(authorization=f"vm-api-key {factories.api_key(other)}") == []
    events = AccountEvent.objects.filter(kind__startswith="store-wide").order_by("pk")
    assert [(event.owner, event.kind, event.subject) for event in events] == [
        (owner, f"store-wide blocklist entry {change}", "evil.example")
        for change in ("added", "removed")
        for owner in ("octo-org", "other")
    ]


def test_the_page_says_who_gets_the_list(organization, owner):
    assert "Every agent gets this list" in page(owner).content.decode()
    factories.organization("other")
    manage("add", "paste.example", "--reason", "anyone can write there")
    text = page(owner).content.decode()
    assert "only if it sends an API key of octo-org" in text
    assert "paste.example" in text
    entry = BlocklistEntry.objects.get()
    removal = reverse("runners-settings:remove-entry", args=["octo-org", entry.pk])
    assert owner.post(removal).status_code == 404


@pytest.mark.parametrize("endpoint", IPV6)
def test_the_page_refuses_an_ipv6_address_and_says_why(organization, owner, endpoint):
    answer = page(owner, {"endpoint": endpoint, "reason": "scanner"})
    assert answer.status_code == 422
    assert f"“{endpoint.lower()}” is an IPv6 address." in answer.content.decode()
    assert "give up all enforcement" in answer.content.decode()
    assert not BlocklistEntry.objects.exists()


def test_what_the_agent_cannot_block_is_never_served(organization, owner):
    rows = [("ip_address", endpoint) for endpoint in (*IPV6, "203.0.113.9/8", "evil.example")]
    rows += [("domain", "203.0.113.8"), ("domain", "*.evil.example"), ("wildcard_domain", "*")]
    for kind, endpoint in rows:
        BlocklistEntry.objects.create(kind=kind, endpoint=endpoint, reason=kind)
    blocklist.add(organization=organization, endpoint="203.0.113.7", reason="scanner", by=ANN)
    assert served() == ["203.0.113.7"]
    BlocklistEntry.objects.filter(endpoint="2001:db8::1").update(organization=organization)
    assert "Not served: the agent cannot block it" in page(owner).content.decode()


@pytest.mark.parametrize(
    "endpoint", ["", "evil", "http://evil.example", "*", "*.com.*", "a b.example", "1.2.3.4/8", "*evil.example"]
)
def test_what_is_not_a_destination_is_refused_with_examples(organization, endpoint):
    with pytest.raises(EndpointRefused, match=r"Enter an IPv4 address such as 203\.0\.113\.9"):
        blocklist.add(organization=organization, endpoint=endpoint, reason="x", by=ANN)
