from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('positions', '0006_switch_and_freezing'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='position',
            index=models.Index(condition=models.Q(('last_exit_at__isnull', False)), fields=['account', 'instrument', 'last_exit_at'], name='position_last_left'),
        ),
    ]
