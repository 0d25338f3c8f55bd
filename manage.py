#!/usr/bin/env python3
"""Django's command line for Policy Store."""

import os
import sys

from policystore.operations import command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "policystore.config.settings")
    command_line.run(sys.argv)
