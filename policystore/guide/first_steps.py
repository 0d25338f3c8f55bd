"""The first hour of an organization: the steps to a policy that blocks. Each is ticked when it has really happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import urlencode

from policystore.accounts.models import ApiKey, KeyKind
from policystore.inventory.models import Organization
from policystore.policies.models import Attachment, Policy
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint

FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 3, 60
# The step that each page is about, by the name of its view. Only these pages show the next step.
STEP_OF_PAGE = {
    "settings:keys": "runner_key",
    "settings:regenerate-key": "runner_key",
    "runners-settings:github-hosted": "step",
    "runners-settings:job-hooks": "step",
    "runners-settings:last-calls": "call",
    "baseline:organization": "baseline",
    "policies:view": "policy",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A step. `url` is empty where nothing can be done: it is too early, or the person may not; see `asks`.

    `is_ours` is false for what only a runner can do.
    """

    name: str
    label: str
    hint: str
    is_done: bool
    url: str
    asks: str = ""
    is_ours: bool = True


class FirstSteps:
    """The steps of an organization, as a member sees them on a page; reads the database only when a template asks."""

    def __init__(self, request: HttpRequest, organization: Organization) -> None:
        self._request = request
        self._organization = organization

    @cached_property
    def _done(self) -> dict[str, bool]:
        return done(self._organization)

    @property
    def is_over(self) -> bool:
        """True if every step has happened. It costs one statement of look-ups in indexes."""
        return all(self._done.values())

    @property
    def has_call(self) -> bool:
        """True if a runner has fetched a policy, so that one is connected."""
        return self._done["call"]

    @property
    def only_block_is_left(self) -> bool:
        """True if every step but the last has happened; that one can take weeks of audit."""
        return all(is_done for name, is_done in self._done.items() if name != "block")

    @property
    def count(self) -> int:
        """How many steps have happened."""
        return sum(self._done.values())

    @cached_property
    def steps(self) -> list[Step]:
        """All steps in order."""
        return list(self._steps())

    @property
    def next(self) -> Step | None:
        """What to do after the page's own step, until a job has been served a policy; None on other pages."""
        match = self._request.resolver_match
        here = STEP_OF_PAGE.get(match.view_name) if match else None
        if here is None or (self._done["call"] and self._done["attach"]):
            return None
        at = [step.name for step in self.steps].index(here)
        following = [*self.steps[at + 1 :], *self.steps[:at]]
        return next((step for step in following if step.url and step.is_ours and not step.is_done), None)

    @property
    def waits(self) -> bool:
        """True if only a runner can do what comes next, so that the page should look again."""
        return self._done["runner_key"] and not (self._done["call"] and self._done["baseline"])

    @property
    def poll_seconds(self) -> int:
        """When to look again, in seconds: twice as long each time, up to LAST_POLL_SECONDS."""
        waited = self._request.GET.get("waited", "")
        seconds = int(waited[:3]) * 2 if waited.isascii() and waited.isdecimal() else FIRST_POLL_SECONDS
        return min(max(seconds, FIRST_POLL_SECONDS), LAST_POLL_SECONDS)

    def _steps(self) -> Iterator[Step]:
        done = self._done
        key = self._organization.key
        installs = self._may("accounts.view_apikey")
        owner = "" if installs else "Ask an owner."
        yield Step(
            "runner_key",
            "Create a runner key",
            "Runners fetch their policies with it.",
            done["runner_key"],
            reverse("settings:keys", args=[key]) if installs else "",
            owner,
        )
        yield Step(
            "step",
            "Add the step to a workflow",
            "On your own machines, install the job hooks instead.",
            done["call"],
            reverse("runners-settings:github-hosted", args=[key]) if installs else "",
            owner,
        )
        yield Step(
            "call",
            "See the first call",
            "Start a job. Its call is ticked here within a minute.",
            done["call"],
            reverse("runners-settings:last-calls", args=[key]) if installs else reverse("runs:list", args=[key]),
            is_ours=False,
        )
        yield Step(
            "baseline",
            "See what jobs call",
            "The baseline fills as agents report the calls of jobs.",
            done["baseline"],
            reverse("baseline:organization", args=[key]),
            is_ours=False,
        )
        yield from self._policy_steps()

    def _policy_steps(self) -> Iterator[Step]:
        done = self._done
        writes = self._may("policies.change_policy")
        admin = "" if writes else "Ask a security admin."
        source = "baseline:create-policy" if done["baseline"] else "policies:new"
        yield Step(
            "policy",
            "Create a policy",
            "Start with audit, which blocks nothing, from the baseline if there is one.",
            done["policy"],
            reverse(source, args=[self._organization.key]) if writes else "",
            admin,
        )
        yield Step(
            "attach",
            "Attach it to the organization",
            "Or to a repository, a workflow or a cluster. Until then, it applies nowhere.",
            done["attach"],
            self._attach_url() if writes else "",
            admin,
        )
        yield Step(
            "block",
            "Block",
            "When the baseline is stable and the impact shows nothing unexpected, change audit to block.",
            done["block"],
            self._block_url() if writes else "",
            admin,
        )

    def _attach_url(self) -> str:
        if self._done["attach"]:
            return reverse("policies:list", args=[self._organization.key])
        policy = self._policies.order_by("-changed_at", "-pk").first()
        whole = Scope.for_organization(self._organization.key).key
        return f"{self._url_of('policies:attach', policy)}?{urlencode({'add': whole})}" if policy else ""

    def _block_url(self) -> str:
        if not (self._done["attach"] and self._done["call"]):
            return ""
        attached = self._policies.filter(attachment_count__gt=0).order_by("egress_policy", "-changed_at", "-pk")
        policy = attached.first()
        return self._url_of("policies:edit", policy) if policy else ""

    @property
    def _policies(self) -> QuerySet[Policy]:
        return Policy.objects.filter(organization=self._organization).only("pk")

    def _url_of(self, view: str, policy: Policy) -> str:
        return reverse(view, args=[self._organization.key, policy.pk])

    def _may(self, permission: str) -> bool:
        return self._request.user.has_perm(permission, self._organization)


def done(organization: Organization) -> dict[str, bool]:
    """Which steps have happened, read in one statement; the first call also proves the step in the workflow."""
    own = {"organization": OuterRef("pk")}
    keys = ApiKey.objects.filter(**own, revoked_at__isnull=True).exclude(kind=KeyKind.MANAGEMENT)
    calls = JobRun.objects.filter(**own, fetched_at__isnull=False).exclude(verified_by="")
    endpoints = JobEndpoint.objects.filter(**own, calls__gt=F("blocked_calls"))
    policies = Policy.objects.filter(**own)
    found = Organization.objects.filter(pk=organization.pk).values(
        # A job can prove itself with a token from GitHub instead.
        runner_key=Q(Exists(keys)) | Q(Exists(calls)),
        call=Exists(calls),
        baseline=Exists(endpoints),
        policy=Exists(policies),
        attach=Exists(Attachment.objects.filter(**own)),
        block=Exists(policies.filter(egress_policy=Policy.Mode.BLOCK, attachment_count__gt=0)),
    )
    return {name: bool(value) for name, value in found.get().items()}
