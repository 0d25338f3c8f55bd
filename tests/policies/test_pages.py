"""The pages of policies through HTTP: every entry of the three-dot menu, and every kind of history entry."""

import re
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import Actor, Role
from policystore.audit_log.models import HistoryEvent
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import Attachment, Policy
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
TEXT = "# ours\negress-policy: block\nallowed-endpoints: >\n  github.com:443\n  api.github.com:443 # releases\n"
MENU = [
    "View policy",
    "Edit policy",
    "Attach policy",
    "Staged version",
    "View history",
    "View versions",
    "Delete policy",
]
MENU_ATTACHED = ["View policy", "Edit policy", "Modify attachment", "Detach policy", *MENU[3:]]


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def browser(organization, role=Role.SECURITY_ADMIN, username="ann"):
    client = Client()
    client.force_login(
        factories.member(organization, role, username), backend="policystore.accounts.access.RoleBackend"
    )
    return client


@pytest.fixture
def ann(organization):
    return browser(organization)


def address(name, *arguments):
    return reverse(f"policies:{name}", args=["octo-org", *arguments])


def attach(policy, *scopes):
    attachments.ModifyAttachments(policy=policy, add=scopes).apply(by=ANN)


def menu(page):
    """The entries of the menu of the first policy in a list, each with its address below that of the policy."""
    template = re.search(r'data-menu="([^"]+)"', page).group(1)
    block = re.search(rf'<template id="{template}">.*?</template>', page, re.S).group()
    return {text.strip(): path for path, text in re.findall(r'href="([^"]*)"><svg.*?</svg>\s*([^<]+)</a>', block)}


def names(page):
    return re.findall(r'class="cell-name"><div class="cell"><a href="[^"]+">([^<]+)</a>', page)


def test_a_diff_and_the_rest_of_a_long_one_show_when_they_are_asked_for(organization, ann):
    listed = "".join(f"  host-{number}.example.com:443\n" for number in range(300))
    factories.policy(organization, text=f"egress-policy: block\nallowed-endpoints: >\n{listed}")
    event = HistoryEvent.objects.get()
    overview = ann.get(address("history", event.subject_id)).content.decode()
    assert "302 lines added" in overview
    assert "host-0." not in overview
    page = ann.get(address("history", event.subject_id) + f"?diff={event.pk}").content.decode()
    assert "host-0." in page
    assert "and 102 more lines" in page
    assert "host-299." not in page
    full = ann.get(address("history", event.subject_id) + f"?full={event.pk}").content.decode()
    assert "host-299." in full
    assert "more lines" not in full


# The list


def test_the_list_shows_mode_endpoints_attachment_and_last_change(organization, ann):
    first = factories.policy(organization, "first", text=TEXT)
    factories.policy(organization, "second", text="egress-policy: audit\n")
    attach(first, Scope.for_organization("octo-org"), *(Scope.for_repository("octo-org", name) for name in "ab"))
    page = ann.get(address("list")).content.decode()
    assert "Organization, 2 repositories" in page
    assert "Not attached" in page
    assert 'badge-block">Block' in page
    assert 'badge-audit">Audit' in page
    assert '<span class="count">2</span>' in page
    assert [int(number) for number in re.findall(r"<strong>(\d+)</strong> ?<span>", page)] == [2, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=alpha", ["alpha"]),
        ("q=GHCR.io", ["beta"]),
        ("q=hello-world", ["alpha"]),
        ("q=alpha+github", ["alpha"]),
        ("q=%25", []),
        ("q=_", []),
        ("q=nothing", []),
        ("show=block", ["beta"]),
        ("show=audit", ["alpha"]),
        ("show=unattached", ["beta"]),
        ("show=nonsense&sort=nonsense&after=", ["alpha", "beta"]),
        ("sort=name", ["alpha", "beta"]),
        ("sort=-name", ["beta", "alpha"]),
        ("sort=endpoints", ["alpha", "beta"]),
        ("sort=-attached", ["alpha", "beta"]),
        ("q=%00", ["alpha", "beta"]),
    ],
)
def test_the_list_is_searched_narrowed_and_sorted(organization, ann, query, found):
    alpha = factories.policy(organization, "alpha", text="egress-policy: audit\nallowed-endpoints: github.com:443\n")
    factories.policy(organization, "beta", text="egress-policy: block\nallowed-endpoints: quay.io ghcr.io\n")
    attach(alpha, Scope.for_repository("octo-org", "hello-world"))
    shown = names(ann.get(f"{address('list')}?{query}").content.decode())
    assert (shown if "sort" in query else sorted(shown)) == found


@pytest.mark.parametrize("sort", ["name", "-name", "-changed", "endpoints", "attached"])
def test_every_policy_is_on_exactly_one_page_and_the_way_back_is_the_same(organization, ann, settings, sort):
    settings.POLICIES_PER_PAGE = 7
    for number in range(24):
        factories.policy(organization, f"policy-{number:02}")
    pages, query = [], f"?sort={sort}"
    while query:
        page = ann.get(address("list") + query)
        pages.append(names(page.content.decode()))
        query = page.context["next_query"]
    assert [len(page) for page in pages] == [7, 7, 7, 3]
    assert len({name for page in pages for name in page}) == 24
    back = ann.get(address("list") + page.context["previous_query"])
    assert names(back.content.decode()) == pages[2]


@pytest.mark.parametrize("cursor", ["x", "AAAA", "W10", "WzEsMl0", "eyJhIjoxfQ", "\0", "é"])
def test_a_broken_cursor_leads_to_the_first_page(organization, ann, cursor):
    for name in ("after", "before"):
        assert ann.get(address("list"), {name: cursor}).status_code in (200, 302)


def test_the_menu_offers_what_the_policy_and_the_role_allow(organization, ann):
    policy = factories.policy(organization)
    assert [*menu(ann.get(address("list")).content.decode())] == MENU
    attach(policy, Scope.for_organization("octo-org"))
    offered = menu(ann.get(address("list")).content.decode())
    assert [*offered] == MENU_ATTACHED
    for path in offered.values():
        assert ann.get(address("view", policy.pk) + path).status_code == 200
    auditor = browser(organization, Role.AUDITOR, "audrey")
    assert [*menu(auditor.get(address("list")).content.decode())] == [
        "View policy",
        "Staged version",
        "View history",
        "View versions",
    ]


def test_a_search_by_htmx_gets_the_list_alone(organization, ann):
    factories.policy(organization, "alpha")
    page = ann.get(address("list"), {"q": "alpha"}, headers={"HX-Request": "true", "HX-Target": "policies"})
    assert "<html" not in page.content.decode()
    assert names(page.content.decode()) == ["alpha"]
    assert "HX-Request" in page.headers["vary"]


# Creating and editing


def test_a_text_is_kept_byte_for_byte(organization, ann):
    text = "# é 😀\n\n\negress-policy:   block  # why\nallowed-endpoints: |\n   github.com:443\n\n"
    ann.post(address("new"), {"name": "kept", "description": "  d ", "text": text.replace("\n", "\r\n")})
    assert Policy.objects.get().text == text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": ""}, "Enter a name for the policy."),
        ({"name": "a/b"}, "Start the name with"),
        ({"name": "x" * 101}, "101 characters (maximum 100)"),
        ({"name": "Taken"}, "has a policy named"),
        ({"name": "workflow-policy"}, "reserved"),
        ({"name": "\0"}, ""),
        ({"description": "x" * 501}, "501 characters (maximum 500)"),
        ({"text": ""}, "The policy is empty."),
        ({"text": "egress-policy: block\nallowed-endpoint: x\n"}, "allowed-endpoints"),
        ({"text": "egress-policy: Block\n"}, "block"),
        ({"text": "a: &a [*a]\n"}, "not allowed"),
        ({"text": "[" * 28_000}, ""),
        ({"text": "x" * 70_000}, ""),
        ({"text": "egress-policy: audit\x00\n"}, ""),
        ({"text": "egress-policy: on\ndisable-sudo: 2024-01-01\n"}, "reads"),
        ({"text": "\udcff"}, ""),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_the_text_still_there(organization, ann, form, said):
    factories.policy(organization, "taken")
    given = {"name": "fresh", "description": "", "text": TEXT, **form}
    body = urlencode(given, errors="surrogateescape")
    page = ann.post(address("new"), body, content_type="application/x-www-form-urlencoded")
    assert page.status_code == 422
    assert said in page.content.decode().replace("&#x27;", "'")
    assert Policy.objects.count() == 1
    if "text" not in form:
        assert "api.github.com:443 # releases" in page.content.decode()


def test_every_problem_is_told_at_once_with_its_line(organization, ann):
    text = "egress-policy: blok\nallowed-endpoint: x\ndisable-sudo: maybe\n"
    page = ann.post(address("check"), {"text": text})
    lines = re.findall(r'data-line="(\d)"', page.content.decode())
    assert sorted(lines) == ["1", "2", "3"]
    assert "<html" not in page.content.decode()


def test_warnings_do_not_stop_a_save(organization, ann):
    text = "egress-policy: block\nallowed-endpoints: EXAMPLE.com:8080 example.com:8080 *\n"
    assert ann.post(address("new"), {"name": "warned", "text": text}).status_code == 302
    shown = ann.get(address("view", Policy.objects.get().pk)).content.decode()
    assert "Warnings" in shown


def edit(client, policy, version, text, **more):
    form = {"name": policy.name, "description": policy.description, "text": text, "version": version, **more}
    return client.post(address("edit", policy.pk), form)


def test_the_second_of_two_saves_is_refused_and_nothing_is_lost(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    other = browser(organization, username="bob")
    assert edit(ann, policy, 1, TEXT + "# ann\n").status_code == 302
    refused = edit(other, policy, 1, TEXT + "# bob\n")
    page = refused.content.decode()
    assert refused.status_code == 409
    assert "ann saved version 2" in page
    assert page.count("# bob") >= 2
    assert "# ann" in page
    assert Policy.objects.get().text == TEXT + "# ann\n"
    again = edit(other, policy, refused.context["form"]["version"].value(), TEXT + "# ann\n# bob\n")
    assert again.status_code == 302
    assert Policy.objects.get().version == 3


def test_the_second_of_two_saves_is_told_of_the_others_name_and_description(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    other = browser(organization, username="bob")
    assert edit(ann, policy, 1, TEXT, name="renamed", description="ann's").status_code == 302
    page = edit(other, policy, 1, TEXT, description="bob's").content.decode()
    assert "Name: theirs is renamed, yours baseline." in page
    assert "Description: theirs is ann&#x27;s, yours bob&#x27;s." in page
    assert "The texts are the same." in page


def test_saving_what_is_there_leaves_no_event(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    assert edit(ann, policy, 1, TEXT).status_code == 302
    assert HistoryEvent.objects.count() == 1


def test_what_was_written_for_a_policy_that_was_deleted_meanwhile_can_be_saved_as_a_new_one(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    policies.DeletePolicy(policy=policy).apply(by=ANN)
    refused = edit(ann, policy, 1, TEXT + "# mine\n")
    page = refused.content.decode()
    assert refused.status_code == 409
    assert "was deleted after you opened it" in page
    assert f'action="{address("new")}"' in page
    assert "# mine" in page
    assert not Policy.objects.exists()
    form = refused.context["form"]
    written = {name: form[name].value() for name in ("name", "description", "text", "version")}
    assert ann.post(address("new"), written).status_code == 302
    assert Policy.objects.get().text == TEXT + "# mine\n"


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("staged-counts", "get"),
        ("impact:attach", "post"),
        ("impact:detach", "get"),
        ("impact:delete", "get"),
    ],
)
def test_a_part_of_a_page_whose_policy_is_gone_leads_the_whole_page_to_the_list(organization, ann, name, method):
    policy = factories.policy(organization, "ci", text=TEXT)
    policies.DeletePolicy(policy=policy).apply(by=ANN)
    place = reverse(name, args=["octo-org", policy.pk])
    answer = getattr(ann, method)(place, headers={"HX-Request": "true"})
    assert (answer.status_code, answer["HX-Redirect"]) == (200, address("list"))
    assert "The policy ci was deleted in the meantime." in ann.get(answer["HX-Redirect"]).content.decode()
    assert getattr(ann, method)(place).status_code == 404
    never = reverse(name, args=["octo-org", policy.pk + 1])
    assert getattr(ann, method)(never, headers={"HX-Request": "true"}).status_code == 404


def test_an_endpoint_is_added_to_what_was_written_for_a_policy_that_is_gone(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    policies.DeletePolicy(policy=policy).apply(by=ANN)
    values = {"name": policy.name, "text": TEXT, "version": 1, "add": "ghcr.io:443"}
    answer = ann.post(address("edit", policy.pk), values)
    assert answer.status_code == 409
    assert "was deleted after you opened it" in answer.content.decode()
    assert "  ghcr.io:443\n" in answer.context["form"]["text"].value()


def test_the_impact_of_what_was_written_for_a_policy_that_is_gone_says_so(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    policies.DeletePolicy(policy=policy).apply(by=ANN)
    values = {"text": TEXT + "# mine\n", "policy": policy.pk, "version": 1}
    for headers in ({"HX-Request": "true"}, {}):
        answer = ann.post(reverse("impact:draft", args=["octo-org"]), values, headers=headers)
        assert answer.status_code == 422
        assert "This policy has been deleted." in answer.content.decode()
    # Without scripts the way back to the text is the one to a new policy.
    assert f'formaction="{address("new")}"' in answer.content.decode()
    assert "# mine" in answer.content.decode()


def test_there_is_no_editor_for_a_policy_that_is_gone_or_never_was(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    policies.DeletePolicy(policy=policy).apply(by=ANN)
    assert ann.get(address("edit", policy.pk)).status_code == 404
    policy.pk += 1
    assert edit(ann, policy, 1, TEXT).status_code == 404


@pytest.mark.parametrize("text", ["{egress-policy: block}\n", "egress-policy: [\n"])
def test_endpoints_that_cannot_be_put_into_a_text_are_listed_beside_it(organization, ann, text):
    page = ann.post(address("new"), {"name": "ci", "text": text, "add": ["", "ghcr.io:443"]}).content.decode()
    assert "Nothing was added" in page
    assert "<code>ghcr.io:443</code>" in page
    assert "added below" not in page


def test_the_editor_tells_of_endpoints_that_a_link_brought_along(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    page = ann.get(address("edit", policy.pk) + "?add=ghcr.io:443").content.decode()
    assert "1 endpoint added below. Nothing is saved yet." in page
    assert "added below" not in ann.get(address("edit", policy.pk)).content.decode()


# Attaching


def save(client, policy, **form):
    return client.post(address("attach", policy.pk), {"action": "save", **form})


def test_replacing_asks_first_and_names_the_policy_that_loses(organization, ann):
    scope = Scope.for_repository("octo-org", "hello-world")
    holder, fresh = factories.policy(organization, "holder"), factories.policy(organization, "fresh")
    attach(holder, scope)
    asked = save(ann, fresh, add=[scope.key])
    page = asked.content.decode()
    assert asked.status_code == 409
    assert "holder" in page
    assert Attachment.objects.get().policy == holder
    confirmed = {name: re.findall(rf'name="{name}" value="([^"]+)"', page) for name in ("add", "remove", "replacing")}
    assert save(ann, fresh, **confirmed).status_code == 302
    assert Attachment.objects.get().policy == fresh
    for policy, said in ((holder, "Replaced by fresh."), (fresh, "Replaced holder.")):
        assert said in ann.get(address("history", policy.pk)).content.decode()


def test_of_very_many_scopes_each_can_be_found_and_removed(organization, ann):
    policy = factories.policy(organization)
    scopes = [Scope.for_repository("octo-org", f"repository-{number:03}") for number in range(505)]
    attach(policy, *scopes)
    page = ann.get(address("attach", policy.pk)).content.decode()
    assert "Attached now (505)" in page
    assert "The first 500 are shown" in page
    assert scopes[504].key not in page
    form = {"action": "narrow", "attached": "y-504", "remove": [scopes[0].key]}
    found = ann.post(address("attach", policy.pk), form).content.decode()
    assert re.findall(r'type="checkbox" name="remove" value="([^"]+)"', found) == [scopes[504].key]
    assert re.findall(r'type="hidden" name="remove" value="([^"]+)"', found) == [scopes[0].key]
    assert save(ann, policy, remove=[scopes[0].key, scopes[504].key]).status_code == 302
    assert Attachment.objects.count() == 503
    assert "and 3 more" in ann.get(address("detach", policy.pk)).content.decode()
    assert "and 483 more" in ann.get(address("delete", policy.pk)).content.decode()


def test_endless_numbers_among_what_was_agreed_to_are_passed_over(organization, ann):
    scope = Scope.for_repository("octo-org", "hello-world")
    attach(factories.policy(organization, "holder"), scope)
    fresh = factories.policy(organization, "fresh")
    for agreed in ("9" * 5000, "9" * 19, "-1", "٣", ""):
        assert save(ann, fresh, add=[scope.key], replacing=[f"{agreed} {scope.key}"]).status_code == 409


def test_scopes_are_added_and_removed_in_one_go(organization, ann):
    policy = factories.policy(organization)
    workflow = Scope.for_workflow("octo-org", "hello-world", "ci.yml")
    repository = Scope.for_repository("octo-org", "hello-world")
    attach(policy, workflow)
    assert save(ann, policy, add=[repository.key], remove=[workflow.key]).status_code == 302
    assert [row.scope for row in Attachment.objects.all()] == [repository]
    history = ann.get(address("history", policy.pk)).content.decode()
    assert "specific workflows → entire repo" in history
    assert HistoryEvent.objects.latest("pk").kind == "attached"


def test_very_many_scopes_are_attached_at_once(organization, ann):
    policy = factories.policy(organization)
    keys = [f"repository:octo-org/r{number}" for number in range(1500)]
    assert save(ann, policy, add=keys).status_code == 302
    assert Policy.objects.get().attachment_count == 1500
    assert ann.get(address("view", policy.pk)).status_code == 200
    assert ann.get(address("attach", policy.pk)).status_code == 200


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        ("cluster", "dev-k8s", "cluster:octo-org/dev-k8s"),
        ("organization", "", "organization:octo-org"),
        ("repository", "Octo-Org/Hello", "repository:octo-org/hello"),
        ("workflow", "hello/CI.yml", "workflow:octo-org/hello/CI.yml"),
    ],
)
def test_each_type_of_scope_is_added_as_written(organization, ann, kind, name, key):
    policy = factories.policy(organization)
    page = ann.post(address("attach", policy.pk), {"action": "add", "type": kind, "name": name})
    if kind == "repository":
        assert page.status_code in (200, 422)
        page = ann.post(address("attach", policy.pk), {"action": "add", "type": kind, "name": "Hello"})
    assert f'name="add" value="{key}"' in page.content.decode()
    assert not Attachment.objects.exists()


@pytest.mark.parametrize(
    "form",
    [
        {"action": "add", "type": "repository", "name": "a/b/c"},
        {"action": "add", "type": "workflow", "name": "ci.yml"},
        {"action": "add", "type": "cluster", "name": "\0"},
        {"action": "add", "type": "", "name": "x"},
        {"action": "save", "add": "organization:other"},
        {"action": "save", "add": "nonsense"},
        {"action": "save", "remove": "repository:other/x"},
    ],
)
def test_what_is_no_scope_of_ours_is_refused(organization, ann, form):
    policy = factories.policy(organization)
    assert ann.post(address("attach", policy.pk), form).status_code == 422
    assert not Attachment.objects.exists()


def test_targets_are_searched_and_say_which_policy_they_have(organization, ann):
    holder, fresh = factories.policy(organization, "holder"), factories.policy(organization, "fresh")
    attach(holder, Scope.for_repository("octo-org", "hello-world"))
    attach(holder, Scope.for_repository("octo-org", "other"))
    attach(fresh, Scope.for_repository("octo-org", "hello-there"))
    page = choose(ann, fresh, type="repository", name="hello").content.decode()
    assert "has holder" in page
    assert "Already attached" in page
    assert "octo-org/other" not in page


def choose(client, policy, *, part="targets", **form):
    headers = {"HX-Request": "true", "HX-Target": part}
    return client.post(address("attach", policy.pk), form, headers=headers)


def test_ticked_targets_become_rows_with_their_state_and_unticked_ones_leave(organization, ann):
    holder, fresh = factories.policy(organization, "holder"), factories.policy(organization, "fresh")
    free, held, mine = (Scope.for_repository("octo-org", name) for name in ("free", "held", "mine"))
    attach(holder, held)
    attach(fresh, mine)
    answer = choose(ann, fresh, part="pending", chosen=[free.key, held.key], shown=[free.key, held.key], add=mine.key)
    page = answer.content.decode()
    assert "<html" not in page
    assert 'id="targets"' not in page
    assert answer["HX-Trigger-After-Settle"] == '{"attachment-changed": {}}'
    assert [state in page for state in ("Will be added", "Replaces holder", "Already attached")] == [True] * 3
    assert "3 to add, 0 to remove" in page
    less = choose(ann, fresh, part="pending", add=[free.key, held.key], chosen=held.key, shown=[free.key, held.key])
    assert [target.scope for target in less.context["pending"]] == [held]
    searched = choose(ann, fresh, type="repository", name="free", add=held.key)
    assert [target.scope for target in searched.context["pending"]] == [held]
    assert re.search(r'id="pending"\s+hx-swap-oob="true"', searched.content.decode())
    dropped = choose(ann, fresh, action=f"drop {held.key}", chosen=held.key, shown=held.key)
    assert "To be added (0)" in dropped.content.decode()


def test_without_scripts_ticked_targets_are_saved_and_kept_through_a_search(organization, ann):
    policy = factories.policy(organization)
    one, other = (Scope.for_repository("octo-org", name) for name in ("one", "other"))
    form = {"type": "repository", "name": "one", "searched": "one", "shown": one.key, "chosen": one.key}
    page = ann.post(address("attach", policy.pk), {**form, "action": "find", "name": "other"})
    assert [target.scope for target in page.context["pending"]] == [one]
    assert save(ann, policy, **{**form, "add": other.key}).status_code == 302
    assert {row.scope for row in Attachment.objects.all()} == {one, other}


def test_seen_replacements_need_no_second_question(organization, ann):
    scope = Scope.for_repository("octo-org", "hello-world")
    attach(factories.policy(organization, "holder"), scope)
    fresh = factories.policy(organization, "fresh")
    page = choose(ann, fresh, part="pending", add=scope.key).content.decode()
    seen = {name: re.findall(rf'name="{name}" value="([^"]+)"', page) for name in ("add", "replacing")}
    assert save(ann, fresh, **seen).status_code == 302
    assert Attachment.objects.get().policy == fresh


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("workflow", "fresh/ci.yml", "“fresh/ci.yml” has not been added."),
        ("workflow", "fresh", "does not name a repository and a workflow."),
        ("organization", "other-org", "“other-org” is not octo-org."),
        ("", "fresh", "Choose a scope type first."),
    ],
)
def test_a_target_that_was_entered_but_not_added_is_not_dropped(organization, ann, kind, name, said):
    policy = factories.policy(organization)
    form = {"type": kind, "name": name, "add": "repository:octo-org/hello-world"}
    answer = save(ann, policy, **form)
    page = answer.content.decode()
    assert answer.status_code == 422
    assert "Nothing was saved" in page
    assert said in page
    assert f'value="{name}"' in page
    assert f'name="add" value="{form["add"]}"' in page
    assert not Attachment.objects.exists()
    assert save(ann, policy, **{**form, "name": ""}).status_code == 302


def test_after_attaching_the_page_says_what_runners_need(organization, ann):
    policy = factories.policy(organization)
    owner = browser(organization, Role.OWNER, "olga")
    for client, has_link in ((ann, False), (owner, True)):
        save(client, policy, add=f"repository:octo-org/for-{has_link}".lower())
        page = client.get(address("view", policy.pk)).content.decode()
        assert "<code>use-policy-store: true</code>" in page
        assert ("Set up runners" in page) is has_link


def test_detaching_keeps_the_policy(organization, ann):
    policy = factories.policy(organization)
    attach(policy, Scope.for_organization("octo-org"))
    assert "octo-org" in ann.get(address("detach", policy.pk)).content.decode()
    ann.post(address("detach", policy.pk))
    assert not Attachment.objects.exists()
    assert Policy.objects.exists()
    assert HistoryEvent.objects.latest("pk").kind == "detached"


# Deleting, and the history that stays


def test_a_policy_is_deleted_once_its_name_is_typed_and_its_history_stays(organization, ann):
    policy = factories.policy(organization, "doomed", text=TEXT)
    attach(policy, Scope.for_organization("octo-org"))
    assert ann.post(address("delete", policy.pk), {"name": "Doomed"}).status_code == 422
    assert Policy.objects.exists()
    assert ann.post(address("delete", policy.pk), {"name": "doomed"}).status_code == 302
    assert not Attachment.objects.exists()
    history = ann.get(address("history", policy.pk)).content.decode()
    events = re.findall(r"<h3>(Policy \w+)</h3>", history)
    assert events == ["Policy Deleted", "Policy Detached", "Policy Attached", "Policy Created"]
    assert "Edit Policy" not in history
    assert "doomed" in ann.get(address("organization_history")).content.decode()
    assert ann.get(address("view", policy.pk)).headers["Location"] == address("history", policy.pk)


def test_an_update_shows_both_sides_and_marks_the_changed_words(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    edit(ann, policy, 1, TEXT.replace("  api.github.com:443", "  api.example.com:443") + "disable-sudo: true\n")
    event = HistoryEvent.objects.get(kind="updated")
    history = ann.get(address("history", policy.pk) + f"?diff={event.pk}").content.decode()
    newest = history[history.index("<h3>Policy Updated") : history.index("<h3>Policy Created")]
    assert "<mark>github</mark>" in newest
    assert "<mark>example</mark>" in newest
    assert re.search(r'class="added">disable-sudo: true', newest)
    assert "Edit Policy" in history
    for kept in ("ann", "Version 2", 'datetime="'):
        assert kept in newest


def test_names_and_descriptions_that_change_are_told(organization, ann):
    policy = factories.policy(organization, "before", text=TEXT)
    edit(ann, policy, 1, TEXT, name="after", description="why")
    history = ann.get(address("history", policy.pk)).content.decode()
    assert "before → after" in history
    assert "(none) → why" in history


def test_what_people_write_is_never_markup(organization, ann):
    text = "# <script>alert(1)</script>\negress-policy: audit\n"
    policy = factories.policy(organization, text=text, description="<b>bold</b>")
    for name in ("view", "edit", "history", "attach", "delete"):
        page = ann.get(address(name, policy.pk)).content.decode()
        assert "<script>alert" not in page
        assert "<b>bold" not in page


def test_a_long_history_comes_in_pages(organization, ann):
    policy = factories.policy(organization, text=TEXT)
    for number in range(1, 31):
        edit(ann, policy, number, f"{TEXT}# {number}\n")
    first = ann.get(address("history", policy.pk)).content.decode()
    assert first.count("<h3>Policy") == 25
    older = re.search(r'href="(\?before=\d+)"', first).group(1)
    assert ann.get(address("history", policy.pk) + older).content.decode().count("<h3>Policy") == 6
    assert ann.get(address("history", policy.pk) + "?before=x&full=x").status_code in (200, 302)


@pytest.mark.parametrize("name", ["list", "view", "history", "attach", "edit"])
def test_a_page_asks_as_many_queries_for_many_rows_as_for_few(organization, ann, django_assert_max_num_queries, name):
    def fill(count):
        for number in range(count):
            policy = factories.policy(organization, f"p-{Policy.objects.count()}")
            attach(policy, Scope.for_repository("octo-org", f"r-{Policy.objects.count()}-{number}"))

    def measure():
        with django_assert_max_num_queries(30) as counted:
            assert ann.get(address(name, *([] if name == "list" else [first.pk]))).status_code == 200
        return len(counted)

    first = factories.policy(organization, "first")
    fill(2)
    few = measure()
    fill(20)
    attach(first, *(Scope.for_workflow("octo-org", "many", f"w{number}.yml") for number in range(20)))
    assert measure() <= few
