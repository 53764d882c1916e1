"""Prepares the database and the static files before the programs start, in one process to save time.

Every step may be repeated.
"""

import os

import django
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


def main() -> None:
    """Migrate, collect the static files, and make what a fresh installation needs."""
    django.setup()
    call_command("migrate", interactive=False, verbosity=1)
    call_command("collectstatic", interactive=False, verbosity=0)
    call_command("bootstrap")


if __name__ == "__main__":
    main()
