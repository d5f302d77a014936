"""Sends a NeuroVault folder: the only code that talks to a server, and only when it is asked to.

NeuroVault's REST API: a collection is made by POST to ``/api/collections/``, each image by POST to
``/api/collections/<id>/images/`` with its fields and its file; the token goes into the header ``Authorization``.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ibma_app.core.errors import InputError, ReadWriteError
from ibma_app.core.from_files import parse_json
from ibma_app.publishing.neurovault import VaultImage

SERVER = "https://neurovault.org"
TIMEOUT = 300  # s
LARGEST_ANSWER = 2**20  # bytes: a collection or an image in NeuroVault's words takes some thousand


@dataclass(frozen=True)
class Planned:
    """One request that would be sent."""

    method: str
    path: str  # {collection} stands for the number that the server gives
    fields: Mapping[str, str]
    file: Path | None = None

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in self.fields.items() if value)
        return f"{self.method} {self.path} {shown}{f' file={self.file.name}' if self.file else ''}"


def plan_upload(
    collection: Mapping[str, Any], images: Iterator[tuple[VaultImage, Path]], *, private: bool
) -> list[Planned]:
    """List the requests of an upload.

    Parameters
    ----------
    collection : mapping
        ``collection.json``.
    images : iterator of (VaultImage, Path)
        Each image and its file.
    private : bool
        Whether only its authors see the collection.
    """
    fields = {**_texts(collection), "private": "true" if private else "false"}
    planned = [Planned("POST", "/api/collections/", fields)]
    for image, path in images:
        own = {key: value for key, value in image.fields.items() if key != "file"}
        planned.append(Planned("POST", "/api/collections/{collection}/images/", _texts(own), path))
    return planned


def read_token(path: Path | None) -> str:
    """Read the token of an account.

    Raises
    ------
    InputError
        No file, or an empty one.
    """
    if path is None:
        raise InputError(
            "--upload neurovault needs --token-file FILE: a file with the token of your NeuroVault account."
        )
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path} cannot be read: {error}.") from None
    if not token or any(character.isspace() for character in token):
        raise InputError(f"--token-file {path} does not hold one token.")
    return token


def send(planned: list[Planned], token: str, server: str = SERVER) -> str:
    """Send the requests; return the address of the collection.

    Raises
    ------
    ReadWriteError
        The server refused one, or cannot be reached; what was sent stays there, and the message says where.
    """
    number = ""
    for request in planned:
        answer = _send_one(request, number, token, server)
        if not number:
            stated = answer.get("id")
            if not isinstance(stated, int) or isinstance(stated, bool):
                raise ReadWriteError(f"{server} made a collection, but did not say its number: {str(answer)[:200]}")
            number = str(stated)
    return f"{server}/collections/{number}/"


def _send_one(request: Planned, number: str, token: str, server: str) -> Mapping[str, Any]:
    body, boundary = _multipart(request)
    address = f"{server}{request.path.format(collection=number)}"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": f"multipart/form-data; boundary={boundary}"}
    asked = Request(address, data=body, headers=headers, method=request.method)
    made = f" The collection {server}/collections/{number}/ has what was sent before." if number else ""
    try:
        with urlopen(asked, timeout=TIMEOUT) as response:
            content = response.read(LARGEST_ANSWER + 1)
        if len(content) > LARGEST_ANSWER:
            raise ValueError("its answer is longer than NeuroVault's are")
        answer = parse_json(content.decode("utf-8", "replace"))
        if not isinstance(answer, Mapping):
            raise ValueError("its answer is no JSON object")
    except HTTPError as error:
        reason = error.read(500).decode("utf-8", errors="replace")
        raise ReadWriteError(f"{address}: refused ({error.code} {error.reason}): {reason}.{made}") from None
    except (URLError, OSError, ValueError, HTTPException) as error:
        raise ReadWriteError(f"{address}: {getattr(error, 'reason', error)}.{made} Try again later.") from None
    return answer


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in fields.items() if value not in (None, "") and not isinstance(value, bool)}


def _multipart(request: Planned) -> tuple[bytes, str]:
    """Write fields and file as a form."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in request.fields.items()
    ]
    if request.file is not None:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{request.file.name}"\r\n'
        parts += [f"{head}Content-Type: application/gzip\r\n\r\n".encode(), request.file.read_bytes(), b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), boundary
