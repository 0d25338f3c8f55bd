"""Policies, their scopes, the endpoint sets they include, exceptions, break glass, and the history of everything."""

from policystore.policies.models.as_code_state import ManagedPolicy, PendingDetach, RequestedAttachments
from policystore.policies.models.break_glass import BreakGlass
from policystore.policies.models.change_requests import ChangeRequest, FourEyes
from policystore.policies.models.endpoint_sets import EndpointSet, EndpointSetUse
from policystore.policies.models.exceptions import NeverAllowHost, PolicyException
from policystore.policies.models.policy import Attachment, Policy
from policystore.policies.models.staged import CanaryScope, StagedVersion

__all__ = [
    "Attachment",
    "BreakGlass",
    "CanaryScope",
    "ChangeRequest",
    "EndpointSet",
    "EndpointSetUse",
    "FourEyes",
    "ManagedPolicy",
    "NeverAllowHost",
    "PendingDetach",
    "Policy",
    "PolicyException",
    "RequestedAttachments",
    "StagedVersion",
]
