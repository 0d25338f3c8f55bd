"""The description of the routes tells the truth: it names each route and method, and no other."""

import json
import re

from django.urls import URLPattern, URLResolver, get_resolver

from tests.runners.asking import ask

CATCHING_ALL = "unknown-route"


def routes(resolver=None, prefix=""):
    for entry in (resolver or get_resolver()).url_patterns:
        if isinstance(entry, URLResolver):
            yield from routes(entry, prefix + str(entry.pattern))
        elif isinstance(entry, URLPattern) and entry.name != CATCHING_ALL:
            path = "/" + prefix + str(entry.pattern)
            if path == "/v1" or path.startswith(("/v1/", "/api/")):
                yield re.sub(r"<str:(\w+)>", r"{\1}", path), {method.lower() for method in entry.callback.methods}


def described():
    document = json.loads(ask("GET", "/v1/openapi.json").body)
    assert document["openapi"].startswith("3.1")
    return document


def test_each_route_and_method_is_described_and_no_other():
    told = {path: {method for method in item if method != "parameters"} for path, item in described()["paths"].items()}
    # Read from the address before Django sees it.
    assert told.pop("/v1/clusters/{cluster}") == {"get"}
    assert told == dict(routes())


def test_every_reference_leads_somewhere():
    document = described()
    for reference in re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(document)):
        found = document
        for step in reference.split("/"):
            found = found[step]


def test_the_parameters_of_a_path_are_those_in_it():
    document = described()
    for path, item in document["paths"].items():
        names = set()
        for parameter in item.get("parameters", []):
            if "$ref" in parameter:
                parameter = document["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
            names.add(parameter["name"])
        assert names == set(re.findall(r"{(\w+)}", path)), path


def test_each_change_that_a_system_may_ask_for_can_be_told_to_wait():
    """Where an organization wants four eyes, its keys get 409."""
    changes = {
        (path, method): set(operation["responses"])
        for path, item in described()["paths"].items()
        for method, operation in item.items()
        if method in ("post", "delete") and operation["security"] == [{"managementKey": []}]
    }
    assert len(changes) == 4
    assert [change for change, told in changes.items() if "409" not in told] == []
