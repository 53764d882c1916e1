from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0005_unfilled_stops_are_found")]

    operations = [
        migrations.AddIndex(
            model_name="order",
            index=models.Index(
                condition=models.Q(
                    ("resting", True),
                    (
                        "state__in",
                        ["cancel_requested", "partially_filled", "pending", "submitted", "submitting", "unknown"],
                    ),
                ),
                fields=["position"],
                name="order_at_rest",
            ),
        ),
    ]
