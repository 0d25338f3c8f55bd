"""Static files whose addresses change with their content, so that browsers can keep them for good."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest, HttpResponse

VERSION = "v"
_FOR_GOOD = f"public, max-age={365 * 24 * 60 * 60}, immutable"


class VersionedStorage(StaticFilesStorage):
    """Appends a hash of the file to its URL. Files stay in the packages that bring them, without `collectstatic`."""

    def url(self, name: str | None) -> str:
        """Return the URL of a static file, such as `/static/css/base.css?v=1f2e3d4c`; a folder's has no version."""
        address: str = super().url(name)
        version = _version(name or "")
        return f"{address}?{VERSION}={version}" if version else address


class CacheVersions:
    """Let browsers keep a static file that was requested by its version; others are kept for an hour."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        asked = request.GET.get(VERSION) if request.path.startswith(settings.STATIC_URL) else None
        # During an upgrade, a process may be asked for the file of another release.
        if asked and response.status_code == 200 and asked == _version(request.path.removeprefix(settings.STATIC_URL)):
            response["Cache-Control"] = _FOR_GOOD
        return response


# Cached, since each page refers to a dozen files. After a change of a file, the process has to be started again.
@lru_cache(maxsize=1024)
def _version(name: str) -> str:
    found = finders.find(name)
    if not isinstance(found, str) or not Path(found).is_file():
        return ""
    return blake2b(Path(found).read_bytes(), digest_size=4).hexdigest()
