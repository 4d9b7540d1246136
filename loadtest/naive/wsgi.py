"""`gunicorn -c loadtest/naive/gunicorn.py loadtest.naive.wsgi`, DJANGO_SETTINGS_MODULE set."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
