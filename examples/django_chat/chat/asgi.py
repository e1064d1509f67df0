"""The project as an ASGI application."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
os.environ.setdefault("CHAT_URLCONF", "chat.urls_async")

application = get_asgi_application()
