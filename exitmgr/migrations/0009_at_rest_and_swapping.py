from django.db import migrations, models

import exitmgr.states


class Migration(migrations.Migration):
    dependencies = [("exitmgr", "0008_flattens_and_risk_answers")]

    operations = [
        migrations.AddIndex(
            model_name="bracket",
            index=models.Index(
                condition=models.Q(("swap", ""), _negated=True), fields=["position"], name="bracket_swapping"
            ),
        ),
        migrations.AddIndex(
            model_name="bracket",
            index=models.Index(
                condition=models.Q(
                    ("mode__in", ["resting", "native"]), ("status", exitmgr.states.BracketStatus["ACTIVE"])
                ),
                fields=["position"],
                name="bracket_at_rest",
            ),
        ),
    ]
