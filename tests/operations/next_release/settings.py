"""The settings of a release that brings one more migration."""

from policystore.settings import *  # noqa: F403
from policystore.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.operations.next_release"]
