"""The views under ASGI: the same, except the streaming view."""

from django.urls import path

from chat import urls, views

urlpatterns = [path("chat", views.chat_async), *urls.urlpatterns]
