"""Downloads: JSON and images over HTTP, with retries, limits and a cache of files."""

import contextlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ibma_app.core.errors import DataError, InputError, OutputError, ReadWriteError
from ibma_app.core.from_files import parse_json, whole_number_in

LOGGER = logging.getLogger(__name__)
ATTEMPTS = 4
FIRST_WAIT = 1.0  # seconds, doubled after each attempt
LONGEST_WAIT = 30.0
TIMEOUT = 60.0
MAX_JSON = 64 * 2**20  # bytes
MAX_FILE = 2**30
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses for which another attempt may succeed


class NothingThereError(InputError):
    """The server says that it does not exist, or is not public; another attempt will not help."""


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only (urllib would follow ftp: too)."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise InputError(f"{req.full_url} redirects to {newurl}: refused.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_json(address: str) -> Any:
    """Fetch a JSON document.

    Raises
    ------
    NothingThereError
        The address does not exist.
    InputError
        The server does not answer after several attempts.
    ReadWriteError
        The answer is not JSON.
    """
    raw = fetch(address, MAX_JSON)
    try:
        return parse_json(raw.decode("utf-8-sig"))
    except ValueError as error:
        raise ReadWriteError(f"{address} did not answer with JSON ({str(error)[:80]}).") from error


def fetch(address: str, limit: int) -> bytes:
    """Fetch at most ``limit`` bytes, with several attempts where an error may be temporary."""
    if urlsplit(address).scheme not in ("http", "https"):
        raise InputError(f"{address} is no web address.")
    wait, fault = FIRST_WAIT, ""
    for attempt in range(ATTEMPTS):
        if attempt:
            LOGGER.info("%s: %s; attempt %d of %d in %.0f s", address, fault, attempt + 1, ATTEMPTS, wait)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        try:
            return _once(address, limit)
        except urllib.error.HTTPError as error:
            if error.code not in _PASSING:
                raise NothingThereError(
                    f"{address} answers {error.code} ({error.reason}).{_hint(error.code)}"
                ) from None
            fault, wait = f"the server answers {error.code}", _asked_for(error, wait)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            fault = str(getattr(error, "reason", None) or error) or type(error).__name__
    raise InputError(
        f"{address} cannot be fetched after {ATTEMPTS} attempts: {fault}. Is there a network? "
        "If not here, download the collection elsewhere (nilearn's fetch_neurovault_ids) and give its folder."
    )


def _once(address: str, limit: int) -> bytes:
    """Fetch without further attempts."""
    opener = urllib.request.build_opener(_WebOnly)
    request = urllib.request.Request(address, headers={"User-Agent": "ibma-app", "Accept": "*/*"})
    with opener.open(request, timeout=TIMEOUT) as answer:
        raw: bytes = answer.read(limit + 1)  # http.client.IncompleteRead where the body is shorter than announced
        promised = answer.headers.get("Content-Length", "")
    if len(raw) > limit:
        raise DataError(f"{address} has more than {limit // 2**20} MiB: refused.")
    length = whole_number_in(promised)
    if length is not None and len(raw) < length:
        raise http.client.IncompleteRead(raw, length - len(raw))
    return raw


def _hint(code: int) -> str:
    """Explain a status to the user."""
    if code in (401, 403):
        return " It is private: only public collections can be fetched."
    return " Is the number right, and the collection public?" if code == 404 else ""


def _asked_for(error: urllib.error.HTTPError, wait: float) -> float:
    """Return how long a busy server asks to wait."""
    asked = (error.headers.get("Retry-After") or "") if error.headers else ""
    seconds = whole_number_in(asked)
    return wait if seconds is None else min(float(seconds), LONGEST_WAIT)


def fetch_file(address: str, path: Path) -> Path:
    """Fetch a file into the cache, unless it is there; it is never there in part.

    Raises
    ------
    InputError
        As `fetch_json`.
    OutputError
        The cache cannot be written.
    """
    if path.is_file() and path.stat().st_size:
        return path
    raw = fetch(address, MAX_FILE)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(raw)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def safe_name(text: str) -> str:
    """Make a file name of any text: letters, digits, dot, dash and underscore, never hidden."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".") or "file"
