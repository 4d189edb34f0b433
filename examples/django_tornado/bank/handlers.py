"""The bank as a JSON API, in Tornado's handlers.

Rule: a handler waits, and what it waits for is a synchronous view in a greenlet.
"""

from __future__ import annotations

import json
from typing import Any

from tornado.web import HTTPError, RequestHandler

from bank import views
from motorlike import green

__all__ = ["ROUTES"]


class Handler(RequestHandler):
    """What the handlers share: JSON in and out."""

    def numbers(self, *names: str) -> list[int]:
        """Return what the request's body says of *names*, which are whole numbers."""
        try:
            body = json.loads(self.request.body)
            return [int(body[name]) for name in names]
        except (ValueError, TypeError, KeyError) as exc:
            raise HTTPError(400, reason=f"Expected JSON with {', '.join(names)}") from exc

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the reason alone."""
        self.finish({"error": self._reason})


class AccountsHandler(Handler):
    """All accounts."""

    async def get(self) -> None:
        self.write({"accounts": await green.spawn(views.accounts)})


class TransfersHandler(Handler):
    """Transfers, to make."""

    async def post(self) -> None:
        source, target, amount = self.numbers("source", "target", "amount")
        try:
            made = await green.spawn(views.transfer, source, target, amount)
        except views.Refused as exc:
            self.set_status(409)
            self.write({"error": str(exc)})
        else:
            self.set_status(201)
            self.write(made)


ROUTES = [(r"/accounts", AccountsHandler), (r"/transfers", TransfersHandler)]
