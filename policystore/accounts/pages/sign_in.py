"""Signing in by GitHub or a one-time link, and signing out."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from allauth.socialaccount.providers.base import AuthProcess
from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from policystore.accounts import sign_in_links

BACKEND = "policystore.accounts.access.RoleBackend"


@login_not_required
@never_cache
@require_GET
def sign_in(request: HttpRequest) -> HttpResponse:
    """The sign-in page; people who are signed in go on to where they wanted to go."""
    wanted = _page_of_ours(request, request.GET.get("next", ""))
    if request.user.is_authenticated:
        return redirect(wanted or "home")
    context = {"github_configured": bool(settings.GITHUB_CLIENT_ID), "next": wanted}
    return render(request, "accounts/sign_in.html", context)


def _page_of_ours(request: HttpRequest, address: str) -> str:
    """The address if it is a page of this store, else nothing."""
    ours = url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
    return address if ours else ""


def by_github(method: str) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """Redirect to the sign-in page for any other method, or while GitHub is not set up.

    allauth's `process` can also connect a second GitHub account to a user: anything but signing in is refused.
    """

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @login_not_required
        @wraps(view)
        def answer(request: HttpRequest) -> HttpResponse:
            if request.method != method or not settings.GITHUB_CLIENT_ID:
                return redirect("sign-in")
            asked_for = {*request.GET.getlist("process"), *request.POST.getlist("process")}
            if asked_for - {AuthProcess.LOGIN}:
                return render(request, "accounts/not_connected.html", status=403)
            return view(request)

        return answer

    return decorate


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def sign_in_link(request: HttpRequest, secret: str) -> HttpResponse:
    """Opening the link shows a button, and the button signs in: a program that previews links does not use it up."""
    if request.method != "POST":
        return render(request, "accounts/sign_in_link.html")
    try:
        user = sign_in_links.redeem(secret=secret)
    except sign_in_links.LinkRefused as refusal:
        return render(request, "accounts/sign_in_link.html", {"refusal": refusal}, status=410)
    login(request, user, backend=BACKEND)
    return redirect("home")


@login_not_required
@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    logout(request)
    return redirect("sign-in")


@login_not_required
def to_sign_in(request: HttpRequest) -> HttpResponse:
    """Redirect the addresses of password sign-in."""
    return redirect("sign-in")


@login_not_required
@require_GET
def favicon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for this address whatever the page says."""
    return HttpResponseRedirect(static("icon.svg"))
