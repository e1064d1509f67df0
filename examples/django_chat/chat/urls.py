"""The views under WSGI."""

from django.urls import path

from chat import views

urlpatterns = [
    path("", views.page),
    path("chat", views.chat),
    path("markdown", views.markdown),
    path("static/<str:name>", views.static),
]
