"""Images that rows name: bytes, paths and URLs, each bad one with its reason."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from actors import images
from actors.images import read_images
from sbert_ray.data.errors import InputError

Image = pytest.importorskip("PIL.Image")


def picture(seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 9, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def silent(num_rows: int) -> None:
    assert num_rows == 0


class Handler(BaseHTTPRequestHandler):
    """Serves one picture, and fails in several ways."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        failures = self.asked.count(self.path)
        status = {"/missing": 404, "/broken": 500, "/moody": 500 if failures < 3 else 200}.get(self.path, 200)
        self.send_response(status)
        self.end_headers()
        if status == 200:
            self.wfile.write(picture(1))

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(images, "PAUSE_SECONDS", 0.0)
    Handler.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_bytes_paths_and_urls_are_read_in_their_order(web: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture(ord(name[0])))
    with fsspec.open("memory://pictures/c.png", "wb") as file:
        file.write(picture(3))
    values = [
        picture(),
        "a.png",
        f"{tmp_path}/b.png",
        f"file://{tmp_path}/b.png",
        "memory://pictures/c.png",
        f"{web}/x",
    ]
    found, faults = read_images(values * 20, str(tmp_path), silent)
    assert not faults
    assert found == [picture(), picture(97), picture(98), picture(98), picture(3), picture(1)] * 20


def test_a_relative_path_is_below_the_inputs_folder_wherever_that_is() -> None:
    with fsspec.open("memory://corpus/pictures/a.png", "wb") as file:
        file.write(picture())
    assert read_images(["pictures/a.png", "/corpus/pictures/a.png"], "memory://corpus", silent)[0] == [picture()] * 2


def test_each_bad_image_has_its_reason(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("no picture")
    (tmp_path / "folder").mkdir()
    (tmp_path / "huge.png").write_bytes(picture() + bytes(2**20))
    monkeypatch.setattr("sbert_ray.inference.images.MAX_BYTES", 2**20)
    cases = {
        None: "the image is null",
        b"": "an image of 0 bytes is no image of the formats",
        "a.txt": "an image of 10 bytes is no image of the formats",
        "nowhere.png": "there is no readable file 'nowhere.png'",
        "folder": "is no regular file",
        "/dev/zero": "is no regular file",
        "a\0.png": "is no name of a file",
        "x" * 5000: "File name too long",
        "data:image/png;base64,!": "a data: URI must be base64",
        "http://127.0.0.1:1/a b.png": "cannot be fetched",
        "huge.png": "is larger than 1048576 bytes",
        "zip://a.png::x.zip": "must be on the web or in one of s3,",
        f"{web}/missing": "cannot be fetched: HTTP status 404",
        f"{web}/broken": "cannot be fetched: HTTP status 500",
    }
    good = {"moody": f"{web}/moody"}
    found, faults = read_images([*cases, *good.values()], str(tmp_path), silent)
    assert found == [None] * len(cases) + [picture(1)]
    for index, (value, reason) in enumerate(cases.items()):
        assert reason in faults[index], value
    assert (Handler.asked.count("/missing"), Handler.asked.count("/broken"), Handler.asked.count("/moody")) == (1, 3, 3)


def test_a_file_system_that_fails_is_no_rows_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("the store is away")

    (tmp_path / "a.png").write_bytes(picture())
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", broken)
    with pytest.raises(ConnectionError, match="the store is away"):
        read_images(["a.png"], str(tmp_path), silent)


def test_a_store_whose_package_is_missing_is_no_rows_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(images, "url_to_fs", missing)
    with pytest.raises(InputError, match="images are in s3, which needs a package: Install s3fs"):
        read_images(["s3://bucket/a.png"], "/corpus", silent)
