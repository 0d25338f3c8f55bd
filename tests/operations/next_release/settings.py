"""The settings of a release that brings one more migration."""

from policystore.config.settings import *  # noqa: F403
from policystore.config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.operations.next_release"]
