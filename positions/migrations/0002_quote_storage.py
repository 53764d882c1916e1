"""Quotes are rewritten all day: leave room on their pages, so that a new version stays beside the old one."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("positions", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE positions_quote SET (fillfactor = 30, autovacuum_vacuum_scale_factor = 0.05)",
            "ALTER TABLE positions_quote RESET (fillfactor, autovacuum_vacuum_scale_factor)",
        )
    ]
