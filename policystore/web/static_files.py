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
        found = finders.find(name or "")
        address: str = super().url(name)
        if not isinstance(found, str) or not Path(found).is_file():
            return address
        return f"{address}?{VERSION}={_digest(found, Path(found).stat().st_mtime_ns)}"


class CacheVersions:
    """Let browsers keep a static file that was requested with its version; other static files are kept for an hour."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if request.path.startswith(settings.STATIC_URL) and VERSION in request.GET and response.status_code == 200:
            response["Cache-Control"] = _FOR_GOOD
        return response


@lru_cache(maxsize=1024)
def _digest(path: str, _modified: int) -> str:
    return blake2b(Path(path).read_bytes(), digest_size=4).hexdigest()
