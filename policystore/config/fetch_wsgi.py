"""The fetch process: requests of runners, and nothing else. `manage.py fetch` serves it with Granian."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "policystore.config.settings")
os.environ.setdefault("POLICYSTORE_MODE", "production")

import django

django.setup(set_prefix=False)

# Django is set up now, so modules that read settings and models can be imported.
from django.conf import settings
from django.urls import reverse

from policystore.config.urls import fetch_urls
from policystore.runners.clusters import ClusterAddress
from policystore.runners.fetch import recorder
from policystore.runners.fetch.app import FetchFirst, RunnerRoutes
from policystore.web.request_log import RequestLog

# Loaded now, since no fetch may wait for it later: job summaries link to pages.
reverse("home")
recorder.write_automatically()
routed = ClusterAddress(FetchFirst(RunnerRoutes(fetch_urls)))
application = RequestLog(routed, log=settings.ACCESS_LOG)
