"""Signing in and out. Of allauth only GitHub's two addresses and what its pages refer to are there."""

from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from django.urls import path

from policystore.accounts.adapters import GitHubAdapter
from policystore.accounts.views import sign_in

# allauth's redirects use these names; all of them go to the sign-in page.
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
_to_sign_in = sign_in.to_sign_in
_github_login = OAuth2LoginView.adapter_view(GitHubAdapter)
_github_callback = OAuth2CallbackView.adapter_view(GitHubAdapter)

urlpatterns = [
    path("sign-in/", sign_in.sign_in, name="sign-in"),
    path("sign-in/link/<str:secret>/", sign_in.sign_in_link, name="sign-in-link"),
    path("sign-out/", sign_in.sign_out, name="sign-out"),
    path("auth/github/login/", sign_in.by_github("POST")(_github_login), name="github_login"),
    path("auth/github/login/callback/", sign_in.by_github("GET")(_github_callback), name="github_callback"),
    *(path(f"auth/{name.replace('_', '-')}/", _to_sign_in, name=name) for name in _ALLAUTH_NAMES),
    path("admin/login/", _to_sign_in, name="admin-sign-in"),
    path("favicon.ico", sign_in.favicon, name="favicon"),
]
