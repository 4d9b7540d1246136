"""All URLs of the service."""

from django.contrib import admin
from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerView
from rest_framework.renderers import TemplateHTMLRenderer

from wallets import health
from wallets.api.document import DocumentView
from wallets.observability import exposition
from wallets.pages.error_pages import page_not_found
from wallets.pages.problem_types import problem_type

urlpatterns = [
    path("api/v1/", include("wallets.api.urls")),
    path("api/schema", DocumentView.as_view(), name="schema"),
    path(
        "api/docs",
        SpectacularSwaggerView.as_view(url_name="schema", renderer_classes=[TemplateHTMLRenderer]),
    ),
    path(
        "api/redoc",
        SpectacularRedocView.as_view(
            url_name="schema", template_name="redoc.html", renderer_classes=[TemplateHTMLRenderer]
        ),
    ),
    path("admin/", admin.site.urls),
    path("", include("wallets.pages.urls")),
    path("errors/<slug:code>", problem_type),
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("metrics", exposition.metrics),
    re_path(r"", page_not_found),
]
