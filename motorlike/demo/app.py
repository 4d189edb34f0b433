"""The application of the demo: a Tornado site that counts visits to its pages.

``/visit/NAME`` counts a visit, ``/page/NAME`` tells the count of one page,
``/recent`` the latest visits, and ``/`` shows all counts. `command` serves it.

Rule: nothing here knows of the load or of the check. The handlers are written
as in any other application.
"""

from __future__ import annotations

import datetime
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pymongo import WriteConcern
from pymongo.errors import PyMongoError
from tornado.template import Template
from tornado.web import Application, RequestHandler

from motorlike import MotorCollection, MotorDatabase

__all__ = ["Document", "application", "counts"]

Document = dict[str, Any]  # Any: as BSON

_RECENT_VISITS = 20

_HOME = Template(
    """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Page visits</title>
<h1>Page visits</h1>
<table>
{% for page in pages %}
<tr><td><a href="/visit/{{ url_escape(page['_id']) }}">{{ page['_id'] }}</a><td>{{ page['visits'] }}
{% end %}
</table>
<p>Following a link counts a visit. See also the <a href="/recent">latest visits</a>.
</html>
"""
)


def application(database: MotorDatabase[Document], *, affinity: bool = True) -> Application:
    """Make the application, which keeps its counts and its log in *database*.

    Args:
        affinity: Whether a visit is logged and read back on one connection.
    """
    handlers = [
        (r"/", HomeHandler),
        (r"/visit/([^/]+)", VisitHandler),
        (r"/page/([^/]+)", PageHandler),
        (r"/recent", RecentHandler),
    ]
    return Application(handlers, database=database, affinity=affinity, log_function=_log_nothing)


def _log_nothing(handler: RequestHandler) -> None:
    """Keep hundreds of equal lines off the screen."""


class Handler(RequestHandler):
    """What the handlers share: two collections, and how errors are told."""

    @property
    def pages(self) -> MotorCollection[Document]:
        """One document for each page, with its count."""
        pages: MotorCollection[Document] = self.settings["database"].pages
        return pages

    @property
    def log(self) -> MotorCollection[Document]:
        """One document for each visit."""
        log: MotorCollection[Document] = self.settings["database"].log
        return log

    def one_connection(self) -> AbstractContextManager[object]:
        """Keep the operations of a block in order, unless affinity is off."""
        if not self.settings["affinity"]:
            return nullcontext()
        request: AbstractContextManager[object] = self.settings["database"].client.start_request()
        return request

    def write_error(
        self,
        status_code: int,
        **kwargs: Any,  # Any: as Tornado's
    ) -> None:
        """Answer with the error in one line, for the demo's report to quote."""
        error = kwargs.get("exc_info", (None, None))[1]
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{type(error).__name__}: {error}\n")

    def log_exception(
        self,
        typ: Any,  # Any: as Tornado's
        value: BaseException | None,
        tb: Any,
    ) -> None:
        """Log what is a mistake of this file; the answer tells the rest."""
        if not isinstance(value, PyMongoError):
            super().log_exception(typ, value, tb)


class HomeHandler(Handler):
    """All counts, for people."""

    async def get(self) -> None:
        pages = await self.pages.find().sort("_id").to_list()
        self.write(_HOME.generate(pages=pages))


class VisitHandler(Handler):
    """Count a visit, log it without waiting for an answer, and read that back."""

    async def get(self, page: str) -> None:
        await self.pages.update_one({"_id": page}, {"$inc": {"visits": 1}}, upsert=True)
        visit: Document = {"page": page, "at": datetime.datetime.now(datetime.UTC)}
        fast_log = self.log.with_options(write_concern=WriteConcern(w=0))
        with self.one_connection():
            await fast_log.insert_one(visit)  # It adds the _id.
            found = await self.log.find_one({"_id": visit["_id"]})
        self.write({"page": page, "counted": True, "seen": found is not None})


class PageHandler(Handler):
    """The count of one page; 0 for one that nobody has visited."""

    async def get(self, page: str) -> None:
        found = await self.pages.find_one({"_id": page})
        self.write({"page": page, "visits": found["visits"] if found else 0})


class RecentHandler(Handler):
    """The latest visits, the last one first."""

    async def get(self) -> None:
        visits = []
        async for visit in self.log.find().sort("_id", -1).limit(_RECENT_VISITS):
            visits.append({"page": visit["page"], "at": visit["at"].isoformat()})
        self.write({"visits": visits})


async def counts(database: MotorDatabase[Document]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the visits by page: as counted, and as found in the log."""
    counted = {page["_id"]: page["visits"] async for page in database.pages.find()}
    by_page = [{"$group": {"_id": "$page", "visits": {"$sum": 1}}}]
    logged = {page["_id"]: page["visits"] async for page in database.log.aggregate(by_page)}
    return counted, logged
