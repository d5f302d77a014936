"""A server that speaks NeuroVault's JSON."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import nibabel as nib
import numpy as np
import pytest

from ibma_app.importers import fetch


def _image_bytes(values, affine=None):
    return nib.Nifti1Image(
        np.asarray(values, dtype=np.float32), np.diag([4.0, 4, 4, 1]) if affine is None else affine
    ).to_bytes()


class Vault:
    """A server with collections; ``faults`` are statuses for the next requests."""

    def __init__(self):
        self.images, self.files, self.faults, self.asked = {}, {}, [], []
        vault = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                vault.asked.append(self.path)
                fault = vault.faults.pop(0) if vault.faults else None
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Retry-After", "0")
                    self.end_headers()
                    return
                body = vault.answer(self.path)
                self.send_response(200 if body is not None else 404)
                body = body or b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path):
        parts = urlsplit(path)
        steps = parts.path.strip("/").split("/")
        if steps[:2] == ["api", "collections"] and len(steps) == 4:
            if steps[2] not in self.images:
                return None
            query = parse_qs(parts.query)
            offset, limit = int(query["offset"][0]), min(int(query["limit"][0]), 3)  # pages of three
            every = self.images[steps[2]]
            after = f"http://neurovault.org/api/?offset={offset + limit}" if offset + limit < len(every) else None
            return json.dumps({"count": len(every), "next": after, "previous": None,
                               "results": every[offset : offset + limit]}).encode()  # fmt: skip
        return self.files.get(unquote(parts.path))

    def add(self, collection, name, map_type, values, **facts):
        number = sum(map(len, self.images.values())) + 100
        file = f"/media/images/{collection}/{number}/{name}.nii"
        self.files[file] = values if isinstance(values, bytes) else _image_bytes(values)
        facts = {
            "id": number, "name": name, "map_type": map_type, "file": f"http://neurovault.org{file}",
            "url": f"http://neurovault.org/images/{number}/", "collection_id": int(collection),
            "image_type": "statistic_map", "number_of_subjects": 20, "analysis_level": "group", "modality": "fMRI-BOLD",
            "not_mni": False, "is_thresholded": False, "is_valid": True, "statistic_parameters": None,
            "target_template_image": "GenericMNI", "contrast_definition": None,
            "cognitive_contrast_cogatlas": "None", "modify_date": "2016-01-27T21:47:42.236081Z", **facts,
        }  # fmt: skip
        self.images.setdefault(collection, []).append(facts)
        return facts


@pytest.fixture
def vault(monkeypatch):
    vault = Vault()
    monkeypatch.setenv("IBMA_NEUROVAULT_URL", vault.base)
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield vault
    vault.server.shutdown()
    vault.server.server_close()


@pytest.fixture
def image_bytes():
    """Return ``image_bytes(values)``: an image as the server sends it."""
    return _image_bytes
