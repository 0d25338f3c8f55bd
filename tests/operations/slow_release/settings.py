"""The settings of a release that brings one migration, which takes as long as a test wants."""

from policystore.config.settings import *  # noqa: F403
from policystore.config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.operations.slow_release"]
