"""The table of the tickets."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations: ClassVar = [
        migrations.CreateModel(
            name="Ticket",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("visitor", models.CharField(max_length=40, unique=True)),
                ("stored", models.TextField(blank=True)),
                ("is_running", models.BooleanField(default=False)),
            ],
        )
    ]
