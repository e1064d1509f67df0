"""The views under ASGI: the same, but for the one that streams."""

from django.urls import path

from chat import urls, views

urlpatterns = [path("chat", views.chat_async), *urls.urlpatterns]
