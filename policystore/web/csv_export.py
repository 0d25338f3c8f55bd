"""CSV files of lists: written a row at a time into a temporary file, so that a download is complete or refused."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, Any, Final, TypeVar

from django.conf import settings
from django.db import OperationalError
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase

from policystore.db import statement_timeout

Row = TypeVar("Row")
# What a column shows of a row, by the column's name.
Columns = Mapping[str, Callable[[Row], Any]]

CHUNK = 64 * 1024
KEPT_IN_MEMORY = 1024 * 1024
# Characters that start a formula in spreadsheets: =+-@, also in full-width form, and blanks before them.
FORMULA: Final = (*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
TOO_LONG = "This takes longer than the {seconds} seconds that a page has. Filter the list, then export it again."


class TooLong(Exception):
    """The time limit was reached before everything was written."""


def is_requested(request: HttpRequest) -> bool:
    """Return True if a list is requested as CSV."""
    return request.GET.get("format") == "csv"


def download(name: str, columns: Columns[Row], rows: Iterable[Row]) -> HttpResponseBase:
    """The rows as a file to download, or 503 with a message if they take longer than a page may."""
    cells = ([column(row) for column in columns.values()] for row in rows)
    too_long = TOO_LONG.format(seconds=settings.PAGE_SECONDS)
    return respond(f"{name}.csv", "text/csv", lines([*columns], cells), too_long=too_long)


def respond(name: str, content_type: str, texts: Iterable[str], *, too_long: str) -> HttpResponseBase:
    """The text as a file to download, or 503 with the message `too_long` if it takes longer than a page may."""
    try:
        file = in_file(texts, seconds=settings.PAGE_SECONDS)
    except (TooLong, OperationalError) as error:
        if not (isinstance(error, TooLong) or statement_timeout.is_out_of_time(error)):
            raise
        return HttpResponse(too_long, status=503, content_type="text/plain; charset=utf-8")
    filename = name.replace(":", "-")
    return FileResponse(file, as_attachment=True, filename=filename, content_type=f"{content_type}; charset=utf-8")


def lines(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A line of headings, then a line for each row.

    Lists become lines of one cell, objects JSON, and times are in UTC. A cell that a spreadsheet would take for a
    formula gets an apostrophe in front.
    """
    line = _Line()
    writer = csv.writer(line)
    writer.writerow(headings)
    yield line.text
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        yield line.text


class _Line:
    """The file that the csv module writes to; keeps only the last line."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = "\n".join(map(str, value))
    elif isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False) if value else ""
    elif isinstance(value, datetime):
        value = value.astimezone(UTC).isoformat(timespec="seconds")
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def in_chunks(texts: Iterable[str]) -> Iterator[str]:
    """Join texts into chunks of about CHUNK characters."""
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= CHUNK:
            yield "".join(gathered)
            gathered, size = [], 0
    yield "".join(gathered)


def in_file(texts: Iterable[str], *, seconds: float) -> IO[bytes]:
    """The text in a temporary file that is deleted when closed; up to KEPT_IN_MEMORY bytes stay in memory.

    Raises TooLong if it takes more than so many seconds.
    """
    until = time.monotonic() + seconds
    file: IO[bytes] = io.BytesIO()
    try:
        for chunk in in_chunks(texts):
            if time.monotonic() > until:
                raise TooLong
            file.write(chunk.encode())
            if isinstance(file, io.BytesIO) and file.tell() > KEPT_IN_MEMORY:
                file = _on_disk(file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _on_disk(held: io.BytesIO) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it
    file.write(held.getvalue())
    return file
