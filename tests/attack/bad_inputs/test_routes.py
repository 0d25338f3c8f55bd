"""What systems and agents send that makes no sense: HTTP, authorization, and the bodies of the runner protocol."""

import pytest

from tests.attack.bad_inputs.asking import POLICIES, REPOSITORY, Bad, check, rows, world

pytestmark = pytest.mark.django_db
FETCH = f"{REPOSITORY}actions/policies/workflow-policy?workflow=ci.yml&run_id=2&correlationId=job-2"
EVENTS = f"{REPOSITORY}actions/jobs/job-1/"
MANAGER = {"authorization": "Bearer {MANAGEMENT}"}
RUNNER = {"authorization": "vm-api-key {VM}"}


def http(case, status, told, path, method="GET", **more):
    return Bad(f"http: {case}", status, told, path, method=method, **more)


def fetched(case, status, told, authorization, path=FETCH):
    headers = {"authorization": authorization} if authorization else {}
    return Bad(f"key: {case}", status, told, path, method="GET", headers=headers)


def managed(case, status, told, path, body, **more):
    return Bad(f"policy: {case}", status, told, f"{POLICIES}{path}", body=body, headers=MANAGER, **more)


def sent(case, status, told, path, body):
    return Bad(f"agent: {case}", status, told, f"{EVENTS}{path}", body=body, headers=RUNNER)


CASES = [
    http(
        "no such route",
        404,
        "unknown_route: The store has no such address; /v1/openapi.json lists those it has.",
        "/v1/nowhere",
    ),
    http(
        "a slash too many",
        404,
        "unknown_route: The store has no such address; /v1/openapi.json lists those it has.",
        f"{POLICIES}ci/",
    ),
    http("another method", 405, "method_not_allowed: This address takes GET, HEAD only.", FETCH, "DELETE"),
    http("a made-up method", 405, "method_not_allowed: This address takes GET, HEAD only.", FETCH, "BREW"),
    http(
        "a foreign host",
        400,
        "wrong_host: This store is not known by that host name; the operator lists it in ALLOWED_HOSTS.",
        "/v1/nowhere",
        headers={"host": "evil.example"},
    ),
    http(
        "a host that is none",
        400,
        "wrong_host: This store is not known by that host name; the operator lists it in ALLOWED_HOSTS.",
        "/v1/nowhere",
        headers={"host": "a b"},
    ),
    fetched("none", 401, "unauthorized: Send a runner API key of this organization as `vm-api-key KEY`.", ""),
    fetched(
        "an empty one",
        401,
        "unauthorized: Send a runner API key of this organization as `vm-api-key KEY`.",
        "vm-api-key ",
    ),
    fetched(
        "an unknown one",
        401,
        "unauthorized: Send a runner API key of this organization as `vm-api-key KEY`.",
        "vm-api-key ps_vm_nonsense",
    ),
    fetched(
        "another scheme",
        401,
        "unauthorized: Send a runner API key of this organization as `vm-api-key KEY`.",
        "Basic dXNlcjp3b3Jk",
    ),
    fetched(
        "a management key",
        403,
        "forbidden: This is not a runner API key. Use a VM or ARC key.",
        "vm-api-key {MANAGEMENT}",
    ),
    fetched(
        "a key with a byte more",
        401,
        "unauthorized: Send a runner API key of this organization as `vm-api-key KEY`.",
        "vm-api-key {VM}x",
    ),
    fetched(
        "another organization",
        403,
        "forbidden: This API key belongs to another organization.",
        "vm-api-key {VM}",
        FETCH.replace("octo-org", "other-org"),
    ),
    fetched(
        "a runner key as bearer",
        403,
        "forbidden: This is a runner key; use a management key.",
        "Bearer {VM}",
        f"{POLICIES}ci",
    ),
    fetched(
        "no token at all",
        401,
        "unauthorized: Send a management key or a GitHub OIDC token as `Bearer KEY`.",
        "Bearer",
        f"{POLICIES}ci",
    ),
    fetched(
        "a token that is none", 401, "unauthorized: The token is not a JSON Web Token.", "Bearer a.b.c", f"{POLICIES}ci"
    ),
    managed(
        "no JSON",
        400,
        "invalid_json: The body is not JSON: Expecting property name enclosed in double quotes in line 1, column 2.",
        "ci",
        b"{oops",
    ),
    managed(
        "an empty body", 400, "invalid_json: The body is not JSON: Expecting value in line 1, column 1.", "ci", b""
    ),
    managed("a list", 400, "invalid_json: The body is not a JSON object; put braces around it.", "ci", []),
    managed("not UTF-8", 400, "invalid_json: The body is not UTF-8: byte 7 is invalid.", "ci", b'{"a": "\xff"}'),
    managed(
        "too deep",
        400,
        "too_complex: The body is too complex: it is nested more than 16 levels deep. Split or flatten it.",
        "ci",
        b"[" * 100_000,
    ),
    managed(
        "a number that is none",
        400,
        "invalid_json: The body is not JSON: NaN is not a valid number.",
        "ci",
        b'{"a": NaN}',
    ),
    managed(
        "more than a mebibyte",
        413,
        "body_too_large: The body is larger than 1 MiB. Split it into several requests.",
        "ci",
        b" " * (1024 * 1024 + 1),
    ),
    managed(
        "another name",
        422,
        "invalid_body: policyName is not “ci”, the name in the address. Send the same name in both.",
        "ci",
        {"policyName": "other"},
    ),
    managed(
        "no mode",
        422,
        "invalid_body: egress_policy is missing; send it as a string.",
        "ci",
        {"allowed_endpoints": ["github.com:443"]},
    ),
    managed(
        "an unknown mode",
        422,
        "invalid_policy: The policy has 1 error. “blok” is not a valid egress policy. Did you mean “block”?",
        "ci",
        {"egress_policy": "blok", "allowed_endpoints": []},
    ),
    managed(
        "endpoints in a text",
        422,
        "invalid_body: allowed_endpoints is not a list of strings.",
        "ci",
        {"egress_policy": "block", "allowed_endpoints": "github.com"},
    ),
    managed(
        "a bad endpoint",
        422,
        "invalid_policy: The policy has 1 error. In block mode, “10.0.0.1:443” makes the agent stop enforcing for the whole job, because it is an IP address. Remove it, or list a name that public DNS resolves.",
        "ci",
        {"egress_policy": "block", "allowed_endpoints": ["10.0.0.1:443"]},
    ),
    managed(
        "a switch in words",
        422,
        "invalid_body: disable_sudo is neither true nor false.",
        "ci",
        {"egress_policy": "block", "allowed_endpoints": [], "disable_sudo": "yes"},
    ),
    managed(
        "a name with a slash",
        404,
        "unknown_route: The store has no such address; /v1/openapi.json lists those it has.",
        "a%2Fb",
        {"egress_policy": "audit", "allowed_endpoints": []},
    ),
    managed(
        "nothing to attach",
        404,
        "no_policy: The organization has no policy named “nobody”.",
        "nobody/attach",
        {"org": {"apply_to_org": True}},
    ),
    managed(
        "another organization",
        422,
        "invalid_body: org.name is “other-org”, but the address names “octo-org”. Send the same name in both.",
        "ci/attach",
        {"org": {"name": "other-org", "apply_to_org": True}},
    ),
    managed(
        "repositories in a text",
        422,
        "invalid_body: org.repos is not a list of objects.",
        "ci/attach",
        {"org": {"repos": "hello-world"}},
    ),
    managed(
        "a bad repository",
        422,
        "invalid_body: “a b” is not the name of a repository; use letters, digits, dots, - and _.",
        "ci/attach",
        {"org": {"repos": [{"name": "a b", "apply_to_repo": True}]}},
    ),
    managed(
        "what is gone",
        404,
        "no_policy: The organization has no policy named “nobody”.",
        "nobody",
        None,
        method="DELETE",
    ),
    sent(
        "no JSON",
        400,
        "invalid_json: The body is not JSON: Expecting property name enclosed in double quotes in line 1, column 2.",
        "events",
        b"{oops",
    ),
    sent(
        "no list",
        400,
        'invalid_json: The body is not a JSON array. Send the events as [{"type": "dns", …}, …].',
        "events",
        {"type": "dns"},
    ),
    sent(
        "no JSON of a detection",
        400,
        "invalid_json: The body is not JSON: Expecting property name enclosed in double quotes in line 1, column 2.",
        "detections",
        b"{oops",
    ),
    sent(
        "no list of detections",
        400,
        'invalid_json: The body is not a JSON array. Send the events as [{"type": "dns", …}, …].',
        "detections",
        {"id": "Reverse-Shell"},
    ),
    sent(
        "more than a mebibyte",
        413,
        "body_too_large: The body is larger than 1 MiB. Split it into several requests.",
        "events",
        b" " * (1024 * 1024 + 1),
    ),
]


@rows(CASES)
def test_it_is_told_in_json(bad):
    check(world(), bad)
