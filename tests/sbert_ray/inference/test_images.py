"""Images from wherever they are."""

import base64
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from sbert_ray.inference import images as reading
from sbert_ray.inference.images import ImageError, Images, check_image, fetch, open_image
from sbert_ray.inference.inputs import BadInputError, as_inputs, kind_and_value

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)


def encoded(kind: str = "PNG", pixels: np.ndarray = PIXELS, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


class Web(BaseHTTPRequestHandler):
    """Has some images, and some answers that are none."""

    def do_GET(self) -> None:
        answers = {"/a.png": (200, encoded()), "/text.png": (200, b"no image"), "/large.png": (200, b"x" * 5000)}
        moved = {"/moved.png": "/a.png", "/file.png": "file:///etc/hostname", "/ftp.png": "ftp://localhost/a.png"}
        path = self.path.partition("?")[0]
        if path == "/private.png" and self.headers["Authorization"] == "Basic dXNlcjpwQHNz":
            answers[path] = (200, encoded())
        status, body = answers.get(path, (404, b""))
        self.send_response(302 if path in moved else status)
        if path in moved:
            self.send_header("Location", moved[path])
        self.end_headers()
        if path == "/slow.png":
            threading.Event().wait(5)
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The address of a web server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "kind", ["bytes", "bytearray", "memoryview", "path", "string", "data", "url", "moved", "private"]
)
def test_an_image_is_the_same_wherever_it_comes_from(tmp_path, web, kind):
    path = tmp_path / "a.png"
    path.write_bytes(encoded())
    value = {
        "bytes": encoded(),
        "bytearray": bytearray(encoded()),
        "memoryview": memoryview(encoded()),
        "path": path,
        "string": str(path),
        "data": data_uri(encoded()),
        "url": f"{web}/a.png?token=secret",
        "moved": f"{web}/moved.png",
        "private": f"{web}/private.png".replace("://", "://user:p%40ss@"),
    }[kind]
    np.testing.assert_array_equal(np.asarray(open_image(value)), PIXELS)
    assert check_image(value) is None


def test_images_and_arrays_are_taken_as_they_are():
    image = Image.fromarray(PIXELS)
    assert open_image(image) is image
    assert open_image(PIXELS) is PIXELS
    np.testing.assert_array_equal(open_image(torch.from_numpy(PIXELS)), PIXELS)


def test_a_file_is_turned_upright_and_into_rgb():
    exif = Image.Exif()
    exif[0x0112] = 3  # by 180 degrees
    turned = open_image(encoded(exif=exif))
    np.testing.assert_array_equal(np.asarray(turned), PIXELS[::-1, ::-1])
    grey = open_image(encoded(pixels=PIXELS[:, :, 0]))
    np.testing.assert_array_equal(np.asarray(grey), np.repeat(PIXELS[:, :, :1], 3, axis=2))


def test_files_are_opened_as_transformers_opens_them(tmp_path):
    from transformers.image_utils import load_image

    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    shapes = [("JPEG", (9, 7, 3), {"exif": exif}), ("PNG", (9, 7, 4), {}), ("WEBP", (9, 7, 3), {}), ("GIF", (9, 7), {})]
    for kind, shape, options in shapes:
        path = tmp_path / f"a.{kind.lower()}"
        path.write_bytes(encoded(kind, rng.integers(0, 255, shape, dtype=np.uint8), **options))
        with Image.open(path) as opened:
            np.testing.assert_array_equal(np.asarray(open_image(path)), np.asarray(load_image(opened)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"no image", "an image of 8 bytes is no image of the formats AVIF, BMP"),
        (b"", "an image of 0 bytes is no image of the formats"),
        (Path("missing.png"), "there is no file 'missing.png'"),
        ("data:image/png,abc", "a data: URI must be base64, as in"),
        ("data:image/png;base64,!", "a data: URI must be base64"),
        (data_uri(b"x"), "a data: URI is no image"),
        (np.zeros((4, 4)), r"must be of shape \(H, W, 3\) or \(3, H, W\), got \(4, 4\)"),
        (np.zeros((4, 4, 4)), r"got \(4, 4, 4\)"),
        (7, "an image must be of Pillow, an array, bytes, a path or a URL, got int"),
        (None, "got NoneType"),
        ("http://[bad/a.png", "a URL must be valid"),
        ("http:///a.png", "a URL must name a host"),
    ],
    ids=["text", "empty", "missing", "plain", "alphabet", "data", "2-d", "channels", "int", "none", "url", "host"],
)
def test_what_is_no_image_is_told_why(value, reason):
    with pytest.raises(ImageError, match=reason):
        open_image(value)
    assert check_image(value) is not None


def test_a_file_that_would_start_another_program_is_not_opened():
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with Image.open(io.BytesIO(drawing)) as opened:
        assert opened.format == "EPS"
    assert "is no image of the formats" in check_image(drawing)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_cannot_be_decoded(kind):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = encoded(kind, pixels)
    with pytest.raises(ImageError, match=r"cannot be decoded|is no image"):
        open_image(whole[: len(whole) // 2])


def test_an_image_with_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "is too large" in check_image(encoded())


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/none.png?token=secret", "none.png' cannot be fetched: HTTP status 404"),
        ("/text.png", "text.png' is no image"),
        ("/large.png", "large.png' is larger than 4000 bytes"),
        ("/slow.png", "slow.png' cannot be fetched: "),
        ("/file.png", "file.png' cannot be fetched: "),
        ("/ftp.png", "ftp.png' cannot be fetched: "),
    ],
)
def test_what_cannot_be_fetched_names_its_address_without_secrets(web, monkeypatch, path, reason):
    monkeypatch.setattr(reading, "MAX_BYTES", 4000)
    monkeypatch.setattr(reading, "FETCH_SECONDS", 0.5)
    with pytest.raises(ImageError, match=reason) as caught:
        open_image(web.replace("://", "://user:password@") + path)
    assert "secret" not in str(caught.value)
    assert "password" not in str(caught.value)


def test_a_server_that_drips_is_left_after_a_while(monkeypatch):
    class Drip:
        def __enter__(self) -> "Drip":
            return self

        def __exit__(self, *_) -> None:
            pass

        def open(self, *_, timeout: float) -> "Drip":
            return self

        def read1(self, _: int) -> bytes:
            return b"x"

    monkeypatch.setattr(reading, "_web", Drip)
    monkeypatch.setattr(reading, "FETCH_SECONDS", 0.05)
    with pytest.raises(ImageError, match=r"did not come within 0\.05 seconds"):
        fetch("http://host/a.png")


def test_nobody_listens(monkeypatch):
    with pytest.raises(ImageError, match=r"'http://127.0.0.1:9/a.png' cannot be fetched"):
        fetch("http://127.0.0.1:9/a.png")


def test_only_the_head_of_a_file_is_checked():
    whole = encoded(pixels=np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    assert check_image(whole[:2000]) is None


def test_urls_are_checked_without_fetching_them():
    assert check_image("http://nowhere.invalid/a.png") is None


def tensor(image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_a_batch_holds_the_images_of_its_rows_in_order():
    opened = []
    files = [encoded(pixels=np.full((2, 2, 3), value, np.uint8)) for value in range(20)]

    def pixels(image) -> torch.Tensor:
        opened.append(image)
        return tensor(image)

    images = Images(files, pixels, 7)
    assert not opened
    assert len(images) == 20
    assert images.lengths.tolist() == [7] * 20
    rows = np.random.default_rng(0).permutation(20)[:12]
    assert images.num_positions(rows) == 84
    batch = images.batch(rows)
    assert batch["pixel_values"].shape == (12, 3, 2, 2)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == rows.tolist()
    assert batch["modality"] == "image"
    assert len(opened) == 12


def test_a_bad_row_is_named():
    images = Images([encoded(), b"bad", encoded()], tensor, 7)
    with pytest.raises(BadInputError, match="row 1 of the inputs cannot be read: an image of 3 bytes is no") as caught:
        images.batch(np.array([2, 1, 0]))
    assert caught.value.row == 1


BOTH = ("text", "image")


def test_a_text_is_an_image_only_where_it_names_one(tmp_path):
    path = tmp_path / "Cat.JPG"
    path.write_bytes(encoded())
    folder = tmp_path / "folder.png"
    folder.mkdir()
    for text in (str(path), "https://host/a.png?x=1", "data:image/png;base64,xx"):
        assert kind_and_value(text, BOTH, 0) == ("image", text)
        assert kind_and_value(text, ("text",), 0) == ("text", text)
    for text in ("cat.jpg", str(folder), "https://host/page", "a picture at https://host/a.png", "https://[/a.png", ""):
        assert kind_and_value(text, BOTH, 0) == ("text", text)


def test_kinds_are_those_of_the_peer(tmp_path):
    modality = pytest.importorskip("sentence_transformers.base.modality")
    path = tmp_path / "cat.png"
    path.write_bytes(encoded())
    rows = [str(path), "cat.png", "https://h/a.webp", "https://h/a b.png", "https://h/a.txt", "a text", ("a", "b")]
    rows += [Image.fromarray(PIXELS), PIXELS, torch.from_numpy(PIXELS), {"image": "x"}, {"text": "x"}, "data:image/x"]
    for row in rows:
        kind, _ = kind_and_value(row, BOTH, 0)
        assert kind == modality.infer_modality(row, supported_modalities=list(BOTH)), row


@pytest.mark.parametrize(
    ("inputs", "length", "is_single"),
    [
        ("a text", 1, True),
        (b"bytes", 1, True),
        (PIXELS, 1, True),
        (torch.from_numpy(PIXELS), 1, True),
        ({"image": b"x"}, 1, True),
        (Path("a.png"), 1, True),
        (Image.fromarray(PIXELS), 1, True),
        (["a", PIXELS, b"x"], 3, False),
        (np.stack([PIXELS] * 4), 4, False),
        (np.array(["a", "b"]), 2, False),
        (np.array([b"a", "b", Path("c")], object), 3, False),
        ([], 0, False),
    ],
)
def test_one_input_and_many_are_told_apart(inputs, length, is_single):
    rows, single = as_inputs(inputs, BOTH)
    assert (len(rows), single) == (length, is_single)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([PIXELS, 3], "inputs must be texts or images; row 1 is of type int"),
        (["a", None], "inputs must be texts or images; row 1 is of type NoneType"),
        ([{"audio": "x"}], "row 0 is of type dict"),
        ([{"text": b"x"}], "row 0 is of type bytes"),
        (3, "inputs must be a text or image or a list of them, got int"),
        (np.zeros((2, 2)), r"got ndarray of shape \(2, 2\)"),
        (torch.zeros(2, 2), r"got Tensor of shape \(2, 2\)"),
    ],
)
def test_what_is_neither_text_nor_image_is_named(inputs, message):
    with pytest.raises(TypeError, match=message):
        as_inputs(inputs, BOTH)


def test_models_of_texts_keep_their_errors():
    with pytest.raises(TypeError, match="inputs must be texts; row 1 is of type bytes"):
        as_inputs(["a", b"b"], ("text",))
    with pytest.raises(TypeError, match="inputs must be a text or a list of texts, got bytes"):
        as_inputs(b"b", ("text",))
    with pytest.raises(TypeError, match="inputs must be images; row 0 is of type str"):
        as_inputs(["a"], ("image",))


def test_an_error_of_a_row_can_be_pickled():
    import pickle

    error = pickle.loads(pickle.dumps(BadInputError(3, "why")))
    assert (error.row, error.reason, str(error)) == (3, "why", "row 3 of the inputs cannot be read: why")
