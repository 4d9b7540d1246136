"""The WSGI application of the naive service. It needs DJANGO_SETTINGS_MODULE=loadtest.naive.settings."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
