#!/usr/bin/env python
"""Django's command line for this installation."""

import os
import sys

from django.core.management import execute_from_command_line

from config.embedded import UnknownAddress
from config.secrets import SecretsError

if __name__ == "__main__":
    if sys.argv[1:2] == ["replay"]:  # needs no services and no settings, so it must not ask for any
        from exitmgr.replay.command import main as replay

        sys.exit(replay(sys.argv[2:]))
    if sys.argv[1:3] == ["policy", "check"]:  # a file can be checked before anything runs
        from exitmgr.policy.check import main as check

        sys.exit(check(sys.argv[3:]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        execute_from_command_line(sys.argv)
    except (UnknownAddress, SecretsError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
