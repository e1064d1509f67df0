"""The page of a customer, and the desk."""

from django.contrib.auth.views import LoginView
from django.urls import path

from support import views

urlpatterns = [
    path("", views.page),
    path("desk", views.desk),
    path("desk/login", LoginView.as_view(template_name="login.html")),
    path("desk/<int:number>", views.decide),
    path("desk/<int:number>/release", views.release),
]
