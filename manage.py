#!/usr/bin/env python3
"""Django's entry point."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")
    from django.core.management import execute_from_command_line
    from django.db import DatabaseError, connection

    try:
        execute_from_command_line(sys.argv)
    except DatabaseError:
        if connection.introspection.table_names():  # fails as well where no database answers: that is told as it is
            raise
        where = connection.settings_dict["NAME"]
        sys.exit(f"there are no tables of mxfleet in {where}; name the service's MXFLEET_DATA or MXFLEET_ENV_FILE")
