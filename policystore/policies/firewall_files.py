"""The files of GitHub's firewall: one for each repository, merged from the policies of its workflows."""

from __future__ import annotations

from collections.abc import Iterator

from policystore.enforcers import github_firewall
from policystore.enforcers.github_firewall import RepositoryFile
from policystore.enforcers.policy import EffectivePolicy
from policystore.inventory.models import Organization, Repository, Workflow
from policystore.policies.models import Attachment, Policy
from policystore.policy_language.document import read_reply
from policystore.policy_language.scopes import candidate_keys

# The jobs of workflows that the inventory does not know.
OTHER_WORKFLOWS = "other workflows"


class Files:
    """Compiles the files of an organization, whose attachments are read once."""

    def __init__(self, organization: Organization, *, default_hosts: bool = True) -> None:
        self._organization, self._default_hosts = organization, default_hosts
        rows = Attachment.objects.filter(organization=organization).exclude(scope_type="cluster")
        self._attached = dict(rows.values_list("scope_key", "policy_id"))
        self._policies: dict[int, EffectivePolicy] = {}

    def all(self) -> Iterator[tuple[Repository, RepositoryFile]]:
        """The file of each repository in the inventory for which any policy applies, by name."""
        workflows: dict[int, list[str]] = {}
        rows = Workflow.objects.filter(repository__organization=self._organization).order_by("file_name")
        for repository_id, name in rows.values_list("repository_id", "file_name"):
            workflows.setdefault(repository_id, []).append(name)
        for repository in Repository.objects.filter(organization=self._organization).order_by("key"):
            file = self._compiled(repository.key, workflows.get(repository.pk, []))
            if file is not None:
                yield repository, file

    def of(self, repository: str) -> RepositoryFile | None:
        """The file of a repository by its name, or None if no policy applies there."""
        rows = Workflow.objects.filter(repository__organization=self._organization, repository__key=repository.lower())
        return self._compiled(repository.lower(), list(rows.order_by("file_name").values_list("file_name", flat=True)))

    def _compiled(self, repository: str, workflows: list[str]) -> RepositoryFile | None:
        policies, unprotected = {}, []
        for name in (*workflows, OTHER_WORKFLOWS):
            policy = self._policy(repository, "" if name == OTHER_WORKFLOWS else name)
            if policy is not None:
                policies[name] = policy
            elif name != OTHER_WORKFLOWS:
                unprotected.append(name)
        if not policies:
            return None
        return github_firewall.for_repository(policies, unprotected=unprotected, default_hosts=self._default_hosts)

    def _policy(self, repository: str, workflow: str) -> EffectivePolicy | None:
        keys = candidate_keys(self._organization.key, repository, workflow, "")
        policy_id = next((self._attached[key] for key in keys if key in self._attached), None)
        if policy_id is None:
            return None
        if policy_id not in self._policies:
            served = Policy.objects.get(pk=policy_id, organization=self._organization).served_reply
            self._policies[policy_id] = EffectivePolicy.from_reply(read_reply(served))
        return self._policies[policy_id]
