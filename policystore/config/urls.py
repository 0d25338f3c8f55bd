"""Every URL of the web process."""

from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path

from policystore.accounts import pages as account_pages
from policystore.accounts import sign_in
from policystore.accounts.sign_in import GitHubAdapter
from policystore.api import management, openapi
from policystore.api import reading as reading_api
from policystore.detections import pages as detection_pages
from policystore.guide import pages as guide
from policystore.integrations import pages as integrations
from policystore.operations import health
from policystore.policies.pages import (
    attaching,
    break_glass,
    change_requests,
    editing,
    endpoint_sets,
    enforcers,
    history,
    never_allow,
    policies,
    staged,
)
from policystore.quick_search import pages as quick_search
from policystore.runners import pages as runner_pages
from policystore.runners import protocol
from policystore.telemetry import cargowall, ingest
from policystore.traffic import job_summary
from policystore.traffic.pages import baseline, impact, insights

# allauth redirects to these names; all of them lead to the sign-in page.
_ALLAUTH_NAMES = (
    "account_login",
    "account_logout",
    "account_signup",
    "account_inactive",
    "socialaccount_signup",
    "socialaccount_connections",
    "socialaccount_login_cancelled",
    "socialaccount_login_error",
)
_github_login = OAuth2LoginView.adapter_view(GitHubAdapter)
_github_callback = OAuth2CallbackView.adapter_view(GitHubAdapter)

sign_in_urls = [
    path("sign-in/", sign_in.sign_in, name="sign-in"),
    path("sign-in/link/<str:secret>/", sign_in.sign_in_link, name="sign-in-link"),
    path("sign-out/", sign_in.sign_out, name="sign-out"),
    path("auth/github/login/", sign_in.by_github("POST")(_github_login), name="github_login"),
    path("auth/github/login/callback/", sign_in.by_github("GET")(_github_callback), name="github_callback"),
    *(path(f"auth/{name.replace('_', '-')}/", sign_in.to_sign_in, name=name) for name in _ALLAUTH_NAMES),
    path("admin/login/", sign_in.to_sign_in, name="admin-sign-in"),
    path("favicon.ico", sign_in.favicon, name="favicon"),
]

settings_urls = [
    path("harden-runner-installation/", account_pages.installation, name="keys"),
    path("harden-runner-installation/regenerate/", account_pages.regenerate, name="regenerate-key"),
    path("harden-runner-installation/keys/<int:arc_key_id>/clusters/", account_pages.clusters, name="key-clusters"),
    path("management-keys/", account_pages.management_keys, name="management-keys"),
    path("management-keys/<int:key_id>/revoke/", account_pages.revoke_key, name="revoke-key"),
    path("inventory/", account_pages.inventory, name="inventory"),
    path("members/", account_pages.members, name="members"),
    path("members/<int:membership_id>/", account_pages.member, name="member"),
    path("members/<int:membership_id>/remove/", account_pages.remove_member, name="remove-member"),
    path("members/removed/<int:former_id>/add/", account_pages.add_back, name="add-back"),
]

integration_urls = [
    path("", integrations.integrations, name="list"),
    path("new/<str:kind>/", integrations.new, name="new"),
    path("<int:integration_id>/", integrations.integration, name="view"),
    path("<int:integration_id>/edit/", integrations.edit, name="edit"),
    path("<int:integration_id>/secret/", integrations.renew_secret, name="renew-secret"),
    path("<int:integration_id>/enabled/", integrations.set_enabled, name="set-enabled"),
    path("<int:integration_id>/delete/", integrations.delete, name="delete"),
    path("<int:integration_id>/test/", integrations.send_test, name="test"),
    path("<int:integration_id>/deliveries/<int:message_id>/", integrations.delivery, name="delivery"),
    path("<int:integration_id>/deliveries/<int:message_id>/replay/", integrations.replay, name="replay"),
]

policy_urls = [
    path("", policies.policy_list, name="list"),
    path("new/", editing.new, name="new"),
    path("check/", editing.check, name="check"),
    path("break-glass/", break_glass.overview, name="break_glass"),
    path("break-glass/<int:break_glass_id>/end/", break_glass.end, name="end_break_glass"),
    path("history/accounts/", history.account_history, name="account_history"),
    path("history/export/", history.export, name="export_history"),
    path("history/", history.organization_history, name="organization_history"),
    path("change-requests/", change_requests.request_list, name="change-requests"),
    path("change-requests/<int:request_id>/", change_requests.change_request, name="change-request"),
    path("<int:policy_id>/", policies.view, name="view"),
    path("<int:policy_id>/edit/", editing.edit, name="edit"),
    path("<int:policy_id>/exceptions/", policies.add_exception, name="add_exception"),
    path("<int:policy_id>/exceptions/<int:exception_id>/end/", policies.end_exception, name="end_exception"),
    path("<int:policy_id>/staged/", staged.staged, name="staged"),
    path("<int:policy_id>/staged/canaries/", staged.canaries, name="canaries"),
    path("<int:policy_id>/staged/promote/", staged.promote, name="promote"),
    path("<int:policy_id>/staged/discard/", staged.discard, name="discard"),
    path("<int:policy_id>/attach/", attaching.attach, name="attach"),
    path("<int:policy_id>/detach/", attaching.detach, name="detach"),
    path("<int:policy_id>/history/", history.policy_history, name="history"),
    path("<int:policy_id>/enforcers/", enforcers.enforcers, name="enforcers"),
    path("<int:policy_id>/managed/", policies.managed, name="managed"),
    path("<int:policy_id>/versions/", history.version_list, name="versions"),
    path("<int:policy_id>/versions/compare/", history.compare, name="compare"),
    path("<int:policy_id>/versions/<int:number>/", history.version, name="version"),
    path("<int:policy_id>/versions/<int:number>/restore/", history.restore, name="restore"),
    path("<int:policy_id>/delete/", editing.delete, name="delete"),
]

endpoint_set_urls = [
    path("", endpoint_sets.list_sets, name="list"),
    path("new/", endpoint_sets.new, name="new"),
    path("check/", endpoint_sets.check, name="check"),
    path("<int:set_id>/", endpoint_sets.view, name="view"),
    path("<int:set_id>/edit/", endpoint_sets.edit, name="edit"),
    path("<int:set_id>/delete/", endpoint_sets.delete, name="delete"),
    path("<int:set_id>/history/", endpoint_sets.history, name="history"),
]

never_allow_urls = [
    path("", never_allow.hosts, name="list"),
    path("<int:entry_id>/remove/", never_allow.remove, name="remove"),
]

run_urls = [
    path("", runner_pages.run_list, name="list"),
    path("<int:run_id>/", insights.run, name="run"),
    path("of-policy/<int:policy_id>/", runner_pages.runs_of_policy, name="of-policy"),
]

baseline_urls = [
    path("", baseline.view, name="organization"),
    path("repositories/", baseline.scopes, {"kind": "repository"}, name="repositories"),
    path("clusters/", baseline.scopes, {"kind": "cluster"}, name="clusters"),
    path("jobs/", baseline.scopes, {"kind": "job"}, name="jobs"),
    path("view/", baseline.view, name="view"),
    path("create-policy/", baseline.create_policy, name="create-policy"),
    path("export/", baseline.export, name="export"),
    path("import/", baseline.import_endpoints, name="import"),
    path("words/", baseline.words, name="words"),
]

# Each answers with a fragment for the page where the change is made, or with a page of its own.
impact_urls = [
    path("draft/", impact.draft, name="draft"),
    path("<int:policy_id>/attach/", impact.attach, name="attach"),
    path("<int:policy_id>/detach/", impact.detach, {"change": "detach"}, name="detach"),
    path("<int:policy_id>/delete/", impact.detach, {"change": "delete"}, name="delete"),
]

traffic_urls: list[URLPattern | URLResolver] = [
    path("runs/", include((run_urls, "runs"))),
    path("baseline/", include((baseline_urls, "baseline"))),
    path("impact/", include((impact_urls, "impact"))),
    path("insights/", insights.insights_page, name="insights"),
    path("insights/network-events/", insights.network_events, name="network-events"),
    path("policy-store/<int:policy_id>/staged/counts/", insights.staged_counts, name="staged-counts"),
]

help_urls = [
    path("", guide.contents, name="contents"),
    path("<str:topic>/", guide.help_topic, name="topic"),
]

detection_urls = [
    path("", detection_pages.detection_list, name="list"),
    path("status/", detection_pages.change_chosen, name="change-chosen"),
    path("of-run/<int:run_id>/", detection_pages.of_run, name="of-run"),
    path("<int:detection_id>/", detection_pages.detection, name="detection"),
    path("<int:detection_id>/status/", detection_pages.change_status, name="change-status"),
    path("suppression-rules/", detection_pages.rule_list, name="rules"),
    path("suppression-rules/new/", detection_pages.new_rule, name="new-rule"),
    path("suppression-rules/<int:rule_id>/remove/", detection_pages.remove_rule, name="remove-rule"),
]

runner_settings_urls = [
    path("harden-runner-installation/job-hooks/", runner_pages.job_hooks, name="job-hooks"),
    path("harden-runner-installation/job-hooks/<str:name>", runner_pages.script, name="script"),
    path("harden-runner-installation/github-hosted/", runner_pages.github_hosted, name="github-hosted"),
    path("harden-runner-installation/cargowall/", runner_pages.cargowall, name="cargowall"),
    path("harden-runner-installation/github-firewall/", runner_pages.github_firewall, name="github-firewall"),
    path("harden-runner-installation/last-calls/", runner_pages.last_calls, name="last-calls"),
    path(
        "inventory/clusters/<int:cluster_id>/unverified/",
        runner_pages.count_unverified,
        name="count-unverified",
    ),
    path("global-blocklist/", runner_pages.blocklist_page, name="blocklist"),
    path("global-blocklist/<int:entry_id>/remove/", runner_pages.remove_entry, name="remove-entry"),
]

# The runner protocol, which the fetch process answers, too. No address ends in a slash, and none redirects.
runner_urls = [
    path("api/cargowall/v1/action/policy", protocol.cargowall_policy, name="cargowall-policy"),
    path("v1", protocol.root, name="root"),
    path(
        "v1/github/<str:owner>/<str:repository>/actions/policies/workflow-policy",
        protocol.workflow_policy,
        name="workflow-policy",
    ),
    path(
        "v1/github/<str:owner>/<str:repository>/actions/policies/workflow-check",
        protocol.workflow_check,
        name="workflow-check",
    ),
    path(
        "v1/github/<str:owner>/<str:repository>/actions/policies/workflow-policy/status",
        protocol.policy_status,
        name="policy-status",
    ),
    path("v1/github/<str:owner>/<str:repository>/actions/runs/<str:run_id>/monitor", protocol.monitor, name="monitor"),
    path("v1/github/<str:owner>/<str:repository>/actions/subscription", protocol.subscription, name="subscription"),
    path(
        "v1/github/<str:owner>/actions/tls-inspection-status",
        protocol.tls_inspection_status,
        name="tls-inspection-status",
    ),
    path("v1/global-feature-flags", protocol.feature_flags, name="feature-flags"),
    path("v1/global-blocklist", protocol.global_blocklist, name="global-blocklist"),
    path(
        "v1/harden-runner-agent/github/<str:platform>/single/releases/<str:version>",
        protocol.agent_release,
        name="agent-release",
    ),
]

# The API for systems. No address ends in a slash, and none redirects.
api_urls = [
    path("v1/github/<str:owner>/actions/policies/<str:name>", management.policy, name="policy"),
    path("v1/github/<str:owner>/actions/policies/<str:name>/attach", management.attachment, name="attachment"),
    path("v1/github/<str:owner>/actions/baseline", reading_api.organization_baseline, name="organization-baseline"),
    path("v1/github/<str:owner>/actions/detections", reading_api.detections, name="detections"),
    path(
        "v1/github/<str:owner>/<str:repository>/baseline", reading_api.repository_baseline, name="repository-baseline"
    ),
    path("v1/github/<str:owner>/<str:repository>/actions/policies/which", reading_api.explain_policy, name="which"),
    path("v1/github/<str:owner>/<str:repository>/firewall-file", reading_api.firewall_file, name="firewall-file"),
    path("v1/openapi.json", openapi.openapi, name="openapi"),
]

job_summary_url = path(
    "v1/github/<str:owner>/<str:repository>/actions/runs/<str:run_id>/correlation/<str:correlation_id>"
    "/job-markdown-summary",
    job_summary.job_markdown_summary,
    name="job-markdown-summary",
)
_JOB = "v1/github/<str:owner>/<str:repository>/actions/jobs/<str:correlation_id>"
# What agents send, and the summary that a job's last step requests.
telemetry_urls = [
    path("api/cargowall/v1/action/job", cargowall.job_report, name="cargowall-report"),
    path(f"{_JOB}/dns", ingest.dns, name="dns"),
    path(f"{_JOB}/networkconnection", ingest.network_connection, name="network-connection"),
    path(f"{_JOB}/events", ingest.batch, name="events"),
    path(f"{_JOB}/detections", ingest.report, name="report"),
    job_summary_url,
]

invalid_cluster_url = re_path(
    r"^v1/clusters(?:/(?P<name>[^/]*)[\s\S]*)?$", openapi.invalid_cluster, name="invalid-cluster"
)
# `web.middleware` answers these before other middleware.
probe_urls = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.prometheus, name="metrics"),
]

urlpatterns = [
    path("", policies.home, name="home"),
    path("", include(sign_in_urls)),
    path("help/", guide.own_help, name="own-help"),
    path("help/<str:topic>/", guide.own_help, name="own-topic"),
    path("organizations/<str:owner>/help/", include((help_urls, "help"))),
    path("organizations/<str:owner>/settings/", include((settings_urls, "settings"))),
    path("organizations/<str:owner>/settings/four-eyes/", change_requests.four_eyes_setting, name="four-eyes"),
    path("organizations/<str:owner>/settings/", include((runner_settings_urls, "runners-settings"))),
    path("organizations/<str:owner>/settings/never-allow-hosts/", include((never_allow_urls, "never-allow"))),
    path("organizations/<str:owner>/settings/integrations/", include((integration_urls, "integrations"))),
    path("organizations/<str:owner>/", include(traffic_urls)),
    path("organizations/<str:owner>/detections/", include((detection_urls, "detections"))),
    path("organizations/<str:owner>/search/", quick_search.search, name="search"),
    path("organizations/<str:owner>/coverage/", runner_pages.coverage_page, name="coverage"),
    path("organizations/<str:owner>/policy-store/which/", runner_pages.explain_page, name="which"),
    path("organizations/<str:owner>/endpoint-sets/", include((endpoint_set_urls, "endpoint-sets"))),
    path("organizations/<str:owner>/policy-store/", include((policy_urls, "policies"))),
    path("", include((runner_urls, "runners"))),
    path("", include((api_urls, "api"))),
    path("", include(telemetry_urls)),
    invalid_cluster_url,
    re_path(r"^v1(?:/[\s\S]*)?$", openapi.unknown_route, name="unknown-route"),
    *probe_urls,
    path("admin/", admin.site.urls),
]

handler400 = "policystore.web.error_pages.bad_request"
handler500 = "policystore.web.error_pages.server_error"

# What the fetch process serves, at the same addresses; see `runners.fetch.app`.
fetch_urls: tuple[URLPattern | URLResolver, ...] = (
    path("", include((runner_urls, "runners"))),
    job_summary_url,
    invalid_cluster_url,
    *probe_urls,
)
