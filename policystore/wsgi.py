"""The WSGI application that gunicorn serves; production unless POLICYSTORE_MODE says otherwise."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "policystore.settings")
os.environ.setdefault("POLICYSTORE_MODE", "production")

application = get_wsgi_application()
