"""The WSGI entry point: `gunicorn -c walletsvc/gunicorn.py walletsvc.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "walletsvc.settings")

application = get_wsgi_application()
