"""The Tornado application: the bank's handlers, static files, and Django for the rest.

`server.py` makes it, once Django is set up.
"""

from __future__ import annotations

from bank import handlers
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from green_django.wsgi import GreenWSGIContainer
from tornado.web import Application, FallbackHandler, StaticFileHandler

__all__ = ["make_application"]


def make_application() -> Application:
    """Return an application to serve with Tornado's HTTP server."""
    django = GreenWSGIContainer(get_wsgi_application())
    static = {"path": str(settings.STATIC_ROOT)}
    return Application(
        [
            *handlers.ROUTES,
            (rf"{settings.STATIC_URL}(.*)", StaticFileHandler, static),
            (r".*", FallbackHandler, {"fallback": django}),
        ]
    )
