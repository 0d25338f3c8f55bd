"""The public shape of a detection, for the API and for integrations."""

from __future__ import annotations

from django.conf import settings

from policystore.detections.models import Detection


def payload(detection: Detection) -> dict[str, object]:
    """One detection event as JSON values. `job_run` and `organization` must be loaded."""
    run = detection.job_run
    owner = detection.organization.login
    at = str(int(detection.at.timestamp()))
    event: dict[str, object] = {
        "id": detection.detection_id,
        "name": detection.title,
        "owner": owner,
        "repo": run.repository,
        "workflow_id": run.workflow,
        "workflow_path": f".github/workflows/{run.workflow}" if run.workflow else "",
        "run_id": run.run_id,
        "job_id": run.correlation_id,
        "job": run.job,
        "timestamp": at,
        "detection": detection.detail or detection.endpoint,
        "id_timestamp": f"{detection.detection_id}_{at}",
        "html_url": f"{settings.GITHUB_URL}/{owner}/{run.repository}/actions/runs/{run.run_id}" if run.run_id else "",
        "endpoint": detection.endpoint,
        "process": detection.process,
        "status": detection.status,
        "policy_name": detection.policy_name,
        # The number in the store's URLs; `id` is the kind of detection.
        "detection_number": detection.pk,
    }
    if detection.is_lockdown:
        event |= {"is_lockdown": True, "job_terminated": detection.job_terminated}
    return event
