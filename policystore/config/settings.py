"""Every setting of Policy Store, from the environment, in reading order. OPERATIONS.md lists the variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF

from policystore.config import env
from policystore.web import request_log

# Paths and mode

BASE_DIR = Path(__file__).resolve().parents[2]
DATA_DIR = Path(os.environ.get("POLICYSTORE_DATA_DIR") or BASE_DIR / ".policystore").absolute()
PRODUCTION = env.mode() == env.PRODUCTION
DEBUG = False

# Secrets and host names

if PRODUCTION:
    SECRET_KEY = env.production_secret("SECRET_KEY")
    ALLOWED_HOSTS = env.production_hosts()
else:
    SECRET_KEY = os.environ.get("SECRET_KEY") or env.local_secret(DATA_DIR)
    ALLOWED_HOSTS = env.words("ALLOWED_HOSTS") or ["127.0.0.1", "localhost", "[::1]"]
# The store's own address, for every link that leaves it and for every address that people copy from its pages.
# Requests do not decide it: a runner may reach the store under one of the vendor's names.
PUBLIC_URL = env.public_url(ALLOWED_HOSTS)
# Where the job hooks fetch policies. Behind a proxy it is the same address; without one, that of the fetch process.
RUNNER_URL = env.own_address("RUNNER_URL", default=PUBLIC_URL)
SECRET_KEY_FALLBACKS = env.optional_secrets("SECRET_KEY_FALLBACKS")

# API keys are hashed, and secrets encrypted, under keys of their own, so that SECRET_KEY can be changed without
# refusing every runner.
API_KEY_SECRET = env.optional_secret("API_KEY_SECRET") or SECRET_KEY
ENCRYPTION_KEYS = env.optional_secrets("ENCRYPTION_KEYS") or [SECRET_KEY, *SECRET_KEY_FALLBACKS]

# Clients that send this token may read /metrics; if it is not set, nobody may.
METRICS_TOKEN = env.optional_secret("METRICS_TOKEN")

# Heads of the history are signed under a key of their own, too; they go to a file or to s3://bucket/prefix.
HISTORY_SIGNING_SECRET = env.optional_secret("HISTORY_SIGNING_SECRET") or SECRET_KEY
HISTORY_HEADS_TO = os.environ.get("HISTORY_HEADS_TO", "").strip()

# Applications

INSTALLED_APPS = [
    "policystore.operations",
    "policystore.detections",
    "policystore.traffic",
    "policystore.runners",
    "policystore.policies",
    "policystore.audit_log",
    "policystore.integrations",
    "policystore.accounts.apps.AccountsConfig",
    "policystore.inventory",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_htmx",
    "template_partials",
    "django_ace",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.github",
]

MIDDLEWARE = [
    "policystore.web.middleware.ProbesFirst",
    "policystore.web.middleware.PageTimeout",
    "policystore.web.middleware.CompressPages",
    "policystore.web.static_files.CacheVersions",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "policystore.web.middleware.NoStoreMiddleware",
    "policystore.web.middleware.FormResults",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "policystore.accounts.kept_forms.SignInRequired",
    "policystore.accounts.sign_in.MembershipMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "policystore.policies.pages.change_requests.FourEyesMiddleware",
    "policystore.policies.pages.get_or_404.PolicyGoneMiddleware",
]

ROOT_URLCONF = "policystore.config.urls"
WSGI_APPLICATION = "policystore.config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            # As django-template-partials sets them, with this product's own loader for its templates.
            "loaders": [
                (
                    "template_partials.loader.Loader",
                    [
                        (
                            "django.template.loaders.cached.Loader",
                            [
                                "policystore.web.template_loader.Loader",
                                "django.template.loaders.app_directories.Loader",
                            ],
                        )
                    ],
                )
            ],
            "builtins": ["policystore.web.template_tags"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "policystore.accounts.sidebar.navigation",
                "policystore.policies.pages.break_glass.broken_glass",
                "policystore.guide.pages.guide",
            ],
        },
    },
]

# Database: SQLite by default, PostgreSQL in production

SQLITE_PATH = DATA_DIR / "policystore.sqlite3"

# WAL and BEGIN IMMEDIATE let several processes write one after the other. FULL makes an acknowledged commit survive a
# power cut.
SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
}

# No prepared statements: PgBouncer in transaction mode runs each transaction on another connection of the server.
# A server that does not respond must not block a process: runners would wait in vain.
POSTGRESQL_OPTIONS = {
    "server_side_binding": True,
    "prepare_threshold": None,
    "connect_timeout": 2,
    "tcp_user_timeout": 5000,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def _database() -> dict[str, Any]:
    url = env.production_database() if PRODUCTION else os.environ.get("DATABASE_URL", "")
    if not url:
        DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": SQLITE_PATH, "OPTIONS": dict(SQLITE_OPTIONS)}
    try:
        database: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=600, conn_health_checks=True))
    except (dj_database_url.ParseError, dj_database_url.UnknownSchemeError, ValueError):
        env.stop("DATABASE_URL", "is not a valid database address; use postgresql://user:password@host:5432/name.")
    if not database["NAME"]:
        env.stop("DATABASE_URL", "has no database name; use postgresql://user:password@host:5432/name.")
    own_options = SQLITE_OPTIONS if "sqlite" in database["ENGINE"] else POSTGRESQL_OPTIONS
    database["OPTIONS"] = {**own_options, **database.get("OPTIONS", {})}
    if "postgresql" in database["ENGINE"]:
        database["ENGINE"] = "policystore.db.postgresql"
        # Such a cursor would outlive its transaction, which PgBouncer does not allow.
        database["DISABLE_SERVER_SIDE_CURSORS"] = True
    return database


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Sign-in

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["policystore.accounts.access.RoleBackend"]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign-in"

GITHUB_URL = env.web_address("GITHUB_URL", default="https://github.com")
_organizations = env.organizations("GITHUB_ALLOWED_ORGANIZATIONS")
GITHUB_ALLOWED_ORGANIZATIONS = list(_organizations)
# Where no id is set, it is learned when the first member signs in.
GITHUB_ORGANIZATION_IDS = {login: number for login, number in _organizations.items() if number}
if PRODUCTION:
    GITHUB_CLIENT_ID = env.required("GITHUB_CLIENT_ID", "set it to the OAuth app's client id.")
    GITHUB_CLIENT_SECRET = env.required("GITHUB_CLIENT_SECRET", "set it to the OAuth app's client secret.")
    if not GITHUB_ALLOWED_ORGANIZATIONS:
        env.stop("GITHUB_ALLOWED_ORGANIZATIONS", "is not set; name the organizations whose members may sign in.")
else:
    GITHUB_CLIENT_ID = os.environ.get("GITHUB_CLIENT_ID", "")
    GITHUB_CLIENT_SECRET = os.environ.get("GITHUB_CLIENT_SECRET", "")

# Membership is checked again at most this long after the last time.
MEMBERSHIP_MAX_AGE_SECONDS = 15 * 60

SOCIALACCOUNT_ADAPTER = "policystore.accounts.sign_in.GitHubMembersAdapter"
ACCOUNT_ADAPTER = "policystore.accounts.sign_in.NoPasswordAdapter"
SOCIALACCOUNT_ONLY = True
SOCIALACCOUNT_AUTO_SIGNUP = True
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False
ACCOUNT_EMAIL_VERIFICATION = "none"
SOCIALACCOUNT_PROVIDERS = {
    "github": {
        "GITHUB_URL": GITHUB_URL,
        "SCOPE": ["read:user", "read:org"],
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [{"client_id": GITHUB_CLIENT_ID, "secret": GITHUB_CLIENT_SECRET, "key": ""}]
        if GITHUB_CLIENT_ID
        else [],
    }
}
# GitHub Enterprise Server answers below its own address; allauth appends the API's path itself.
if GITHUB_URL == "https://github.com":
    del SOCIALACCOUNT_PROVIDERS["github"]["GITHUB_URL"]

# Sessions, cookies and headers

SESSION_ENGINE = "policystore.accounts.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 60 * 60
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "policystore.accounts.kept_forms.csrf_failure"
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.flag("SECURE_COOKIES") or PRODUCTION
if SESSION_COOKIE_SECURE:
    # Such names cannot be set by another host or over http, and stand apart from those of a local store without TLS:
    # browsers let no http page replace a secure cookie, so nobody could sign in there.
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
CSRF_TRUSTED_ORIGINS = env.web_addresses("CSRF_TRUSTED_ORIGINS")
if PRODUCTION:
    SECURE_SSL_REDIRECT = True
    # No runner route ever redirects: the Terraform provider turns a redirected POST into a GET.
    SECURE_REDIRECT_EXEMPT = [r"^(v1|api)(/|$)"]
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
TRUST_FORWARDED_HEADERS = env.flag("TRUST_FORWARDED_HEADERS")
if TRUST_FORWARDED_HEADERS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF, GITHUB_URL],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

# Static files are served by whitenoise straight from the packages that bring them.

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "policystore.web.static_files.VersionedStorage"},
}
WHITENOISE_USE_FINDERS = True
WHITENOISE_MAX_AGE = 3600

# Language and time

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

# Limits

DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
# A policy may be attached to thousands of scopes in one go; the size above is the limit that counts.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 20_000
POLICIES_PER_PAGE = 50
# How many seconds the database may work for a page. A change may take until shortly before gunicorn ends its process.
CHANGE_SECONDS = 25
PAGE_SECONDS = env.integer("PAGE_SECONDS", default=5, least=1, most=CHANGE_SECONDS)

# Runners

# A hundred years: databases cannot compute dates much further back.
MOST_DAYS = 36_500
# What may be asked without a key, a minute, for each organization and process; misses name jobs never seen.
OPEN_CALLS_PER_MINUTE = env.integer("OPEN_CALLS_PER_MINUTE", default=6000, least=1)
OPEN_MISSES_PER_MINUTE = env.integer("OPEN_MISSES_PER_MINUTE", default=3000, least=1)
# How long after a job's start its telemetry is accepted, and its status and summary are returned to clients that know
# its correlation id. A self-hosted job may run for five days.
JOB_RUN_OPEN_HOURS = env.integer("JOB_RUN_OPEN_HOURS", default=144, least=1, most=MOST_DAYS * 24)
# Where releases of the agent are looked up, below it as `linux/single/releases/latest`.
AGENT_RELEASE_URL = env.web_address("AGENT_RELEASE_URL")
# Where the job hooks themselves are downloaded from.
JOB_HOOKS_URL = env.web_address(
    "JOB_HOOKS_URL",
    default="https://github.com/step-security/gha-runner-job-hooks-keyless/releases/latest/download",
)

# Integrations

# Private networks that owners may have events sent to, besides the public Internet, such as 10.20.0.0/16.
OUTBOX_ALLOWED_NETWORKS = env.networks("OUTBOX_ALLOWED_NETWORKS")
# The API that bots post to; GovSlack has another address.
SLACK_API_URL = env.web_address("SLACK_API_URL", default="https://slack.com/api")

# Days that single network events are kept; what is kept per run and per job stays.
EVENT_RETENTION_DAYS = env.integer("EVENT_RETENTION_DAYS", default=30, least=1, most=MOST_DAYS)
# Days that job runs, their calls and their detections are kept; unverified ones are kept for a day.
JOB_RUN_RETENTION_DAYS = env.integer("JOB_RUN_RETENTION_DAYS", default=400, least=1, most=MOST_DAYS)
# A baseline is stable after this many runs without change, and unstable if it changed within this many.
BASELINE_STABLE_RUNS = env.integer("BASELINE_STABLE_RUNS", default=100, least=1)
BASELINE_UNSTABLE_RUNS = env.integer("BASELINE_UNSTABLE_RUNS", default=50, least=1)

# Days of traffic over which policy changes are replayed, unless a person chooses another number.
IMPACT_DAYS = env.integer("IMPACT_DAYS", default=30, least=1, most=3650)

# The issuers of the OIDC tokens that the `policy:` input sends, and the audiences that are accepted.
_GITHUB_ISSUER = (
    "https://token.actions.githubusercontent.com"
    if GITHUB_URL == "https://github.com"
    else f"{GITHUB_URL}/_services/token"
)
OIDC_ISSUERS = env.web_addresses("OIDC_ISSUERS") or [_GITHUB_ISSUER]
OIDC_AUDIENCES = env.words("OIDC_AUDIENCES")

# Logging: one line an event on standard error; never a secret in it.

LOGGING = request_log.configuration()
# True to log every request.
ACCESS_LOG = env.flag("ACCESS_LOG", default=True)
