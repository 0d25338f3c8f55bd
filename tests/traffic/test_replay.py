"""A draft replayed over observed runs: by tables, and against going through every call of every run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policystore.policy_language.endpoint_matcher import AllowList
from policystore.traffic.impact.replay import DETAILED, NO_POLICY, Ruling, Traffic, unused
from policystore.traffic.impact.run_bitmaps import Run, WorkflowKey, build, decode, encode
from tests import agent_rule

CI = WorkflowKey("hello-world", "ci.yml", "")
RELEASE = WorkflowKey("hello-world", "release.yml", "")
ON_CLUSTER = WorkflowKey("hello-world", "ci.yml", "k8s")


def bitmap(*runs):
    """A bitmap of (key, hour, hosts) runs; a host may carry its port."""
    calls = [(number, endpoint(host)) for number, (_, _, hosts) in enumerate(runs) for host in hosts.split()]
    return build({number: Run(key, hour) for number, (key, hour, _) in enumerate(runs)}, calls)


def endpoint(text):
    host, _, port = text.partition(":")
    return host, int(port or 443)


def ruling(mode, entries):
    return Ruling.of(mode, AllowList.from_entries(entries))


def block(*entries):
    return ruling("block", entries)


TRAFFIC = Traffic(
    [
        bitmap((CI, 10, "a.example b.example"), (CI, 11, "a.example"), (RELEASE, 12, "a.example c.example:80")),
        bitmap((ON_CLUSTER, 20, "b.example"), (RELEASE, 21, "codeload.github.com")),
    ]
)
EVERYWHERE = {CI, RELEASE, ON_CLUSTER}


def test_a_bitmap_is_decoded_as_it_was_encoded():
    written = bitmap((CI, 10, "a.example ünï.example"), (RELEASE, 12, "a.example:80"), (CI, 13, ""))
    assert decode(encode(written)) == written
    assert len(written.key_numbers) == 2


def test_an_empty_bitmap_can_be_encoded():
    assert decode(encode(build({}, []))) == build({}, [])
    assert Traffic([build({}, [])]).runs_by_key() == {}


def test_runs_are_blocked_that_called_anything_off_the_list():
    found = TRAFFIC.replay(EVERYWHERE, after=block("a.example"))
    assert (found.runs, found.off_list, found.more, found.fewer) == (5, 3, 3, 0)
    assert found.off_list_workflows == {CI.repository_workflow, RELEASE.repository_workflow}
    off_list = [(seen.text, seen.runs, seen.workflows, seen.last_hour) for seen in found.off_list_endpoints]
    assert off_list == [
        ("b.example:443", 2, [CI.label], 20),
        ("c.example:80", 1, [RELEASE.label], 12),
    ]


@pytest.mark.parametrize(
    ("entries", "off_list"),
    [
        ((), 4),
        (("a.example",), 3),
        (("a.example", "b.example"), 1),
        (("*.example",), 1),
        (("*.example:443", "c.example:80"), 0),
        (("*.example:80", "*.example:443"), 4),
        (("A.example", "b.example"), 3),
        (("b.example:80", "*.example:443"), 3),
        (("c.example:443", "*.example:443", "c.example:80"), 0),
    ],
)
def test_lists_are_matched_as_the_agent_matches_them(entries, off_list):
    assert TRAFFIC.replay(EVERYWHERE, after=block(*entries)).off_list == off_list


def test_what_the_agent_always_lets_through_is_never_blocked():
    found = Traffic([bitmap((CI, 1, "codeload.github.com x.actions.githubusercontent.com"))]).replay(
        {CI}, after=block()
    )
    assert (found.runs, found.off_list, len(found.called)) == (1, 0, 2)


def test_only_the_requested_keys_count():
    found = TRAFFIC.replay({RELEASE, WorkflowKey("unknown", "", "")}, after=block("a.example"))
    assert (found.runs, found.off_list) == (2, 1)
    assert found.runs_by_key == {RELEASE: 2}
    assert ("b.example", 443) not in found.called


def test_only_runs_of_the_window_count():
    recent = Traffic([bitmap((CI, 10, "a.example"), (CI, 11, "b.example"), (RELEASE, 9, "b.example"))], since=11)
    assert recent.runs_by_key() == {CI: 1}
    assert recent.replay({CI, RELEASE}, after=block()).called == {("b.example", 443)}


def test_a_draft_that_audits_stops_nothing_and_tells_what_block_would_do():
    found = TRAFFIC.replay(EVERYWHERE, before=block("a.example"), after=ruling("audit", ["b.example"]))
    assert (found.off_list, found.more, found.fewer) == (3, 0, 3)
    assert [seen.text for seen in found.freed_endpoints] == ["b.example:443", "c.example:80"]


def test_two_versions_are_compared_run_by_run():
    found = TRAFFIC.replay(EVERYWHERE, before=block("a.example"), after=block("b.example", "c.example:80"))
    # The run that calls a and b is stopped by either; c's run by either, since it calls a too.
    assert (found.off_list, found.more, found.fewer) == (3, 1, 1)
    assert [(seen.host, seen.is_fresh) for seen in found.off_list_endpoints] == [("a.example", True)]
    assert [seen.host for seen in found.freed_endpoints] == ["b.example", "c.example"]


def test_where_no_policy_applies_everything_goes_through():
    found = TRAFFIC.replay(EVERYWHERE, before=block("a.example"), after=NO_POLICY)
    assert (found.off_list, found.more, found.fewer) == (0, 0, 3)
    assert TRAFFIC.replay(EVERYWHERE, before=NO_POLICY, after=block("a.example")).more == 3


def test_without_traffic_there_is_nothing_to_tell():
    found = Traffic([]).replay(EVERYWHERE, after=block())
    assert (found.runs, found.off_list, found.off_list_endpoints, found.called) == (0, 0, [], frozenset())


def test_the_endpoints_that_most_runs_call_are_told_in_detail_and_the_others_counted():
    hosts = [f"host{number}.example" for number in range(DETAILED + 10)]
    found = Traffic([bitmap((CI, 7, " ".join(hosts)), (CI, 8, hosts[-1]))]).replay({CI}, after=block())
    assert len(found.off_list_endpoints) == DETAILED + 10
    assert (found.off_list_endpoints[0].host, found.off_list_endpoints[0].last_hour) == (hosts[-1], 8)
    assert [bool(seen.keys) for seen in found.off_list_endpoints] == [True] * DETAILED + [False] * 10


@pytest.mark.parametrize(
    ("entries", "never"),
    [
        (["a.example:443", "z.example:443"], ["z.example:443"]),
        (["a.example:80", "c.example:80"], ["a.example:80"]),
        (["*.example:443", "*.other:443"], ["*.other:443"]),
        (["*.example:443", "a.example:443", "b.example:80"], ["*.example:443", "b.example:80"]),
        (["codeload.*:443", "*.*.other:443"], ["codeload.*:443"]),
        (["*.example:443", "*.example:80"], ["*.example:80"]),
        (["*.example:9", "*.example:80"], ["*.example:9", "*.example:80"]),
        ([], []),
    ],
)
def test_entries_that_nothing_called_are_told(entries, never):
    called = TRAFFIC.replay(EVERYWHERE, after=block()).called
    assert unused(entries, called) == never


hosts = st.sampled_from(["a.x", "b.x", "a.b.x", "c.y", "codeload.github.com", "d.y"])
endpoints = st.tuples(hosts, st.sampled_from([80, 443]))
entries = st.lists(
    st.builds(
        lambda host, port: f"{host}:{port}",
        st.one_of(hosts, st.sampled_from(["*.x", "*.y", "*", "a*"])),
        st.sampled_from([80, 443]),
    ),
    max_size=6,
)
rulings = st.one_of(st.just(None), st.tuples(st.sampled_from(["audit", "block"]), entries))
keys = st.builds(
    WorkflowKey, st.sampled_from(["r", "s"]), st.sampled_from(["ci.yml", ""]), st.sampled_from(["", "k8s"])
)
runs = st.lists(st.tuples(keys, st.integers(0, 9), st.sets(endpoints, max_size=4)), max_size=12)


# Without a deadline: a busy machine takes longer now and then.
@settings(deadline=None)
@given(runs, st.integers(0, 13), st.sets(keys), rulings, rulings, st.integers(0, 9))
def test_a_replay_says_what_going_through_every_call_says(observed, cut, wanted, before, after, since):
    bitmaps = [
        decode(encode(build({n: Run(key, hour) for n, (key, hour, _) in part}, _calls(part))))
        for part in (list(enumerate(observed))[:cut], list(enumerate(observed))[cut:])
    ]
    traffic = Traffic(bitmaps, since=since)
    found = traffic.replay(wanted, before=_ruling(before), after=_ruling(after))
    counted = [run for run in observed if run[2] and run[1] >= since and run[0] in wanted]
    off_list = [run for run in counted if any(_is(after, "blocked", call) for call in run[2])]
    unsure = [run for run in counted if any(_is(after, "undetermined", call) for call in run[2])]
    was = [_fate(before, run) for run in counted]
    now = [_fate(after, run) for run in counted]
    assert found.runs == len(counted)
    assert found.off_list == len(off_list)
    assert found.off_list_workflows == {run[0].repository_workflow for run in off_list}
    assert found.undetermined == sum(run not in off_list for run in unsure)
    assert found.more == sum(then == "allowed" and after == "blocked" for then, after in zip(was, now, strict=True))
    assert found.fewer == sum(then == "blocked" and after == "allowed" for then, after in zip(was, now, strict=True))
    assert found.called == {call for run in counted for call in run[2]}
    told = {(seen.host, seen.port): seen for seen in found.off_list_endpoints}
    assert told.keys() == {call for call in found.called if _is(after, "blocked", call)}
    undetermined = {(seen.host, seen.port) for seen in found.undetermined_endpoints}
    assert undetermined == {call for call in found.called if _is(after, "undetermined", call)}
    for call, seen in told.items():
        callers = [run for run in counted if call in run[2]]
        assert (seen.runs, set(seen.keys)) == (len(callers), {run[0] for run in callers})
        assert seen.last_hour == max(run[1] for run in callers)
        assert seen.is_fresh is not _blocks(before, "blocked", call)
    freed = {(seen.host, seen.port) for seen in found.freed_endpoints}
    assert freed == {
        call
        for call in found.called
        if _blocks(before, "blocked", call)
        and not _blocks(after, "blocked", call)
        and not _blocks(after, "undetermined", call)
    }


def _calls(part):
    return [(number, call) for number, (_, _, called) in part for call in called]


def _ruling(written):
    return NO_POLICY if written is None else ruling(*written)


def _is(written, verdict, call):
    return written is not None and agent_rule.verdict(written[1], *call) == verdict


def _blocks(written, verdict, call):
    return written is not None and written[0] == "block" and _is(written, verdict, call)


def _fate(written, run):
    """What becomes of a run: blocked for certain, perhaps, or not at all."""
    return next(
        (fate for fate in ("blocked", "undetermined") if any(_blocks(written, fate, c) for c in run[2])), "allowed"
    )


@given(entries, st.sets(endpoints))
def test_an_entry_is_unused_where_going_through_every_call_finds_none_for_it(listed, called):
    ports = {}
    expected = []
    by_name = {host for host, _ in map(endpoint, listed) if "*" not in host} | {"codeload.github.com"}
    for entry in listed:
        host, port = endpoint(entry)
        if "*" not in host:
            is_used = (host, port) in called
        else:
            names = [name for name, theirs in called if theirs == port and name not in by_name]
            is_used = ports.setdefault(host, port) == port and any(
                agent_rule.matches(f"{host}.", f"{name}.") for name in names
            )
        if not is_used:
            expected.append(entry)
    assert unused(listed, called) == expected


def test_calls_that_the_agent_decides_at_random_are_undetermined():
    after = block("*.example:443", "b.example:443", "a.*:8080", "c.example:80")
    found = TRAFFIC.replay(EVERYWHERE, after=after)
    assert (found.off_list, found.undetermined) == (0, 3)
    assert [(seen.text, seen.runs) for seen in found.undetermined_endpoints] == [("a.example:443", 3)]
    assert TRAFFIC.replay(EVERYWHERE, before=after, after=NO_POLICY).fewer == 0


def test_an_entry_that_ends_enforcement_blocks_nothing():
    found = TRAFFIC.replay(EVERYWHERE, before=block(), after=block("metadata.google.internal:80"))
    assert (found.after.blocks, found.after.gives_up) == (False, "metadata.google.internal:80")
    assert (found.off_list, found.more, found.fewer) == (4, 0, 4)
