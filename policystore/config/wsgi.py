"""The web process: pages, telemetry, the management API, and every other route. gunicorn serves it.

Production, unless POLICYSTORE_MODE says otherwise.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "policystore.config.settings")
os.environ.setdefault("POLICYSTORE_MODE", "production")

from django.core.wsgi import get_wsgi_application

django_application = get_wsgi_application()

# Django is set up now, so modules that read settings and models can be imported.
from django.conf import settings
from django.urls import reverse

from policystore.runners.clusters import ClusterAddress
from policystore.runners.fetch import recorder
from policystore.runners.fetch.app import ChunkedBodies, FetchFirst
from policystore.web.gunicorn_worker import Guarded
from policystore.web.request_log import RequestLog

# Every page is loaded now, once for all worker processes, which gunicorn forks; it takes half a second.
reverse("home")
recorder.write_automatically()
routed = ClusterAddress(FetchFirst(ChunkedBodies(django_application)))
application = RequestLog(Guarded(routed), log=settings.ACCESS_LOG)
