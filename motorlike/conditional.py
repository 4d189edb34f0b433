"""What an HTTP request wants of a GridFS file: conditions and ranges.

`web` and `aiohttp` ask it how to answer; it knows neither.

Rule: RFC 9110 decides. A header that it says to ignore changes nothing.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from motorlike.wrappers import MotorGridOut

__all__ = ["Answer", "answer", "cache_headers", "content_type", "etag", "http_date"]

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.ASCII | re.IGNORECASE)
_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True)
class Answer:
    """How to answer a request.

    Attributes:
        status: 200, 206, 304, 412 or 416.
        headers: Those that go with the status.
        start: The first byte to send.
        stop: The byte after the last one to send.
    """

    status: int
    headers: Mapping[str, str]
    start: int = 0
    stop: int = 0


def etag(grid_out: MotorGridOut) -> str:
    """Return an entity tag, in quotes. A file's bytes never change: its document tells."""
    identity = (grid_out._id, grid_out.length, _aware(grid_out.upload_date).isoformat())
    return f'"{hashlib.sha256(repr(identity).encode()).hexdigest()}"'


def content_type(grid_out: MotorGridOut, path: str) -> str | None:
    """Return what the file is said to be, or what its name lets one guess."""
    # Looked up, and not asked for: GridFS deprecates the attribute.
    document = grid_out.delegate._file
    said = document.get("contentType") or (document.get("metadata") or {}).get("contentType")
    if isinstance(said, str):
        return said
    guessed, encoding = mimetypes.guess_type(path)
    if encoding is None:
        return guessed
    return "application/gzip" if encoding == "gzip" else None


def cache_headers(seconds: float) -> dict[str, str]:
    """Return what tells caches for how long the file is fresh, 0 for not at all."""
    if seconds <= 0:
        return {"Cache-Control": "public"}
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    return {"Cache-Control": f"max-age={int(seconds)}", "Expires": http_date(expires)}


def http_date(date: datetime) -> str:
    """Return *date*, which is UTC if it is naive, as a header has it."""
    return format_datetime(_aware(date), usegmt=True)


def answer(
    method: str, headers: Mapping[str, str], tag: str, uploaded: datetime, length: int
) -> Answer:
    """Return how to answer a request for a file.

    Args:
        headers: The request's.
        tag: The file's entity tag.
        uploaded: When it last changed.
        length: Its size in bytes.
    """
    modified = _aware(uploaded).replace(microsecond=0)
    if _precondition_failed(headers, tag, modified):
        return Answer(412, {})
    if _is_unmodified(headers, tag, modified):
        return Answer(304, {})
    whole = Answer(200, {"Content-Length": str(length)}, 0, length)
    if method != "GET" or not _if_range(headers, tag, modified):
        return whole
    return _ranged(headers.get("Range", ""), length) or whole


def _ranged(wanted: str, length: int) -> Answer | None:
    # More than one range may be answered as none; so is what cannot be read.
    match = _RANGE.fullmatch(wanted)
    if match is None or match[1] == match[2] == "":
        return None
    first, last = match.groups()
    start = int(first) if first else max(length - int(last), 0)
    stop = min(int(last) + 1, length) if first and last else length
    if first and last and int(last) < start:
        return None
    if start >= length:
        return Answer(416, {"Content-Range": f"bytes */{length}", "Content-Length": "0"})
    content_range = f"bytes {start}-{stop - 1}/{length}"
    headers = {"Content-Range": content_range, "Content-Length": str(stop - start)}
    return Answer(206, headers, start, stop)


def _precondition_failed(headers: Mapping[str, str], tag: str, modified: datetime) -> bool:
    if (wanted := headers.get("If-Match")) is not None:
        # The strong comparison: weak tags never match.
        strong = re.findall(r'(?<!W/)"[^"]*"', wanted)
        return wanted.strip() != "*" and tag not in strong
    since = _date(headers.get("If-Unmodified-Since"))
    return since is not None and modified > since


def _is_unmodified(headers: Mapping[str, str], tag: str, modified: datetime) -> bool:
    if (known := headers.get("If-None-Match")) is not None:
        return known.strip() == "*" or tag in _ENTITY_TAG.findall(known)
    since = _date(headers.get("If-Modified-Since"))
    return since is not None and modified <= since


def _if_range(headers: Mapping[str, str], tag: str, modified: datetime) -> bool:
    """Whether a range may be answered: the file is the one whose rest is wanted."""
    known = headers.get("If-Range")
    if known is None:
        return True
    return known.strip() == tag or _date(known) == modified


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return _aware(parsedate_to_datetime(text))
    except (ValueError, OverflowError):
        return None


def _aware(date: datetime) -> datetime:
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
