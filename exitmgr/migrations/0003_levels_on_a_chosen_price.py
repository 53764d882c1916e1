import exitmgr.rules.types
import exitmgr.states
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("exitmgr", "0002_every_way_to_decide")]

    operations = [
        migrations.AddIndex(
            model_name="trigger",
            index=models.Index(
                condition=models.Q(
                    ("basis__in", ["last", "mid"]),
                    ("kind", exitmgr.rules.types.TriggerKind["LEVEL"]),
                    ("status", exitmgr.states.TriggerStatus["ARMED"]),
                ),
                fields=["basis"],
                name="trigger_on_a_chosen_price",
            ),
        ),
    ]
