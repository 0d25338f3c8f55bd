"""Keeps what a person entered in a form that is not accepted, because their session or the form's token has ended.

The page shows the form's fields again, with a new token. It is shown only for forms of the store's own pages: another
site could otherwise fill in a form and ask the person to send it.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache

TOKEN = "csrfmiddlewaretoken"  # noqa: S105 the name of a field
# Names of fields whose values the page shows; a person may want to copy them.
TEXTS = ("text", "description", "reason", "comment")
# Fields of integrations whose values no page shows.
SECRETS = ("headers", "webhook_url", "bot_token", "access_key_id", "secret_access_key")


class SignInRequired(LoginRequiredMiddleware):
    """Ask for a sign-in, without losing the form that a person has sent."""

    def handle_no_permission(  # type: ignore[override]
        self, request: HttpRequest, view_func: object
    ) -> HttpResponseBase:
        """Redirect to the sign-in page; for a form or a part of a page, answer in its place."""
        if _is_page(request):
            return super().handle_no_permission(request, view_func)  # type: ignore[arg-type]
        return session_ended(request)


def session_ended(request: HttpRequest) -> HttpResponse:
    """Answer a request whose session has ended: 401 for htmx, whose script reports it, and the fields of a form."""
    if "HX-Request" in request.headers:
        return HttpResponse(status=401)
    if _is_page(request) or not _is_own_form(request):
        return redirect("sign-in")
    return _kept(request, 401, is_signed_out=True)


@never_cache
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form with the wrong token: the fields of the store's own forms, and an error for others."""
    if not _is_own_form(request):
        return render(request, "403_csrf.html", status=403)
    return _kept(request, 403, is_signed_out=False)


def _kept(request: HttpRequest, status: int, *, is_signed_out: bool) -> HttpResponse:
    fields = [(name, value) for name, values in request.POST.lists() for value in values if name != TOKEN]
    context = {
        "is_signed_out": is_signed_out,
        "path": request.get_full_path(),
        "hidden": [field for field in fields if field[0] not in (*TEXTS, *SECRETS)],
        "has_secrets": any(name in SECRETS and value for name, value in fields),
        "texts": [field for field in fields if field[0] in TEXTS],
        "has_files": bool(request.FILES),
    }
    return render(request, "accounts/kept_form.html", context, status=status)


def _is_page(request: HttpRequest) -> bool:
    return request.method != "POST" and "HX-Request" not in request.headers


def _is_own_form(request: HttpRequest) -> bool:
    own = f"{request.scheme}://{request.get_host()}"
    return request.headers.get("Origin") in (own, *settings.CSRF_TRUSTED_ORIGINS)
