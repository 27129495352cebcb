"""Images from wherever they are, as the pixels that a model takes; read batch by batch.

Shapes: N images, B images of a batch, C channels, H and W pixels.
"""

import base64
import binascii
import io
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.inference.inputs import BadInputError, is_url
from sbert_ray.inference.prepared import Features

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read. Pillow knows more, some of which start other programs."""
MAX_BYTES = 64 * 2**20
"""The most that is fetched of a URL."""
FETCH_SECONDS = 30.0
"""How long that may take."""
NUM_READERS = 8
"""Images that are read at the same time: decoding and waiting for the network leave Python's lock alone."""


class ImageError(ValueError):
    """What is given as an image cannot be read as one; the message says why."""


@dataclass(frozen=True)
class Images:
    """N images, which are opened and resized when their batch is due, so that memory holds one batch."""

    images: Sequence[Any]
    """Images of Pillow, arrays or tensors (H, W, C) or (C, H, W), bytes of files, paths, URLs or ``data:`` URIs."""
    pixels: Callable[[Any], Tensor]
    """Makes pixel values (C, H, W), of one size, of an opened image."""
    num_positions_each: int
    """What each costs, in token positions."""
    max_rows: None = None
    """No limit but their positions."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Positions of each image (N,), all the same."""
        return np.full(len(self), self.num_positions_each, np.int64)

    def num_positions(self, rows: NDArray[np.int64]) -> int:
        """Return the positions of a batch of ``rows``."""
        return len(rows) * self.num_positions_each

    def batch(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of ``rows``: ``pixel_values`` (B, C, H, W).

        Raises:
            BadInputError: An image cannot be read; the message names its row.
        """
        if len(rows) <= 1:
            pixels = [self._read(row) for row in rows]
        else:
            with ThreadPoolExecutor(min(NUM_READERS, len(rows))) as readers:
                pixels = list(readers.map(self._read, rows))
        return {"pixel_values": torch.stack(pixels), "modality": "image"}

    def _read(self, row: int) -> Tensor:
        try:
            return self.pixels(open_image(self.images[row]))
        except ImageError as error:
            raise BadInputError(int(row), str(error)) from error


def check_image(value: Any) -> str | None:
    """Return why a value is no image that `Images` reads, or None if it looks like one.

    Of files and bytes only the head is read, so pixels that are cut off or damaged are found when the image is opened.
    URLs are not fetched.
    """
    try:
        if isinstance(value, str) and is_url(value):
            _checked_url(value)
        elif (opened := _opened(value)) is not value and not isinstance(opened, np.ndarray):
            opened.close()
    except ImageError as error:
        return str(error)
    return None


def open_image(value: Any) -> Any:
    """Return an image of Pillow, upright and in RGB, from a file, its bytes or a URL; images and arrays as they are.

    Raises:
        ImageError: It cannot be read.
        ImportError: Pillow is not installed.
    """
    opened = _opened(value)
    if opened is value or isinstance(opened, np.ndarray):
        return opened
    from PIL import ImageOps

    with opened, _readable(value):
        return ImageOps.exif_transpose(opened).convert("RGB")


def require_pillow() -> None:
    """Make sure that images can be read.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401 (whether it is there)
    except ImportError as error:
        raise ImportError("models of images need Pillow: pip install 'sbert-ray[image]'") from error


def _opened(value: Any) -> Any:
    """Return an image of Pillow whose pixels may not be read yet, or an array (H, W, C) or (C, H, W)."""
    require_pillow()
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return _checked_array(value)
    file: Any = None
    if isinstance(value, (bytes, bytearray, memoryview)):
        file = io.BytesIO(value)
    elif isinstance(value, str) and value.startswith("data:"):
        file = io.BytesIO(data_of(value))
    elif isinstance(value, str) and is_url(value):
        file = io.BytesIO(fetch(value))
    elif isinstance(value, (str, Path)):
        file = value
    if file is None:
        raise ImageError(f"an image must be of Pillow, an array, bytes, a path or a URL, got {type(value).__name__}")
    with _readable(value):
        return Image.open(file, formats=FORMATS)


def _checked_array(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 3 or 3 not in (array.shape[0], array.shape[2]):
        raise ImageError(f"an array must be of shape (H, W, 3) or (3, H, W), got {array.shape}")
    return array


_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error)
"""What Pillow's many decoders raise of a damaged file."""


@contextmanager
def _readable(value: Any) -> Iterator[None]:
    """Say of which image Pillow's errors are."""
    from PIL import Image, UnidentifiedImageError

    name = image_name(value)
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError(f"there is no file {name}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is no image of the formats {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error}") from error
    except _DECODER_ERRORS as error:
        raise ImageError(f"{name} cannot be decoded: {error}") from error


def image_name(value: Any) -> str:
    """Return what an error calls an image: its path, or its address without what may be secret."""
    if isinstance(value, str) and value.startswith("data:"):
        return "a data: URI"
    if isinstance(value, str) and is_url(value):
        parts = urlsplit(value)
        return repr(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))
    if isinstance(value, (str, os.PathLike)):
        return repr(os.fspath(value))
    return f"an image of {len(value)} bytes" if isinstance(value, (bytes, bytearray)) else "an image"


def data_of(uri: str) -> bytes:
    """Return what is in a ``data:`` URI.

    Raises:
        ImageError: It is not base64.
    """
    head, comma, data = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ImageError("a data: URI must be base64, as in data:image/png;base64,...")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ImageError(f"a data: URI must be base64: {error}") from error


def fetch(url: str) -> bytes:
    """Return what is at an address of the web, if it is not too large and comes soon.

    Raises:
        ImageError: It cannot be fetched.
    """
    name = image_name(_checked_url(url))
    ends = time.monotonic() + FETCH_SECONDS
    chunks: list[bytes] = []
    num_bytes = 0
    try:
        with _web().open(_request(url), timeout=FETCH_SECONDS) as response:
            while chunk := response.read1(2**16):  # what has come, not waiting for more
                chunks.append(chunk)
                num_bytes += len(chunk)
                if num_bytes > MAX_BYTES:
                    raise ImageError(f"{name} is larger than {MAX_BYTES} bytes")
                if time.monotonic() > ends:
                    raise ImageError(f"{name} did not come within {FETCH_SECONDS:g} seconds")
    except HTTPError as error:
        error.close()
        raise ImageError(f"{name} cannot be fetched: HTTP status {error.code}") from error
    except URLError as error:
        raise ImageError(f"{name} cannot be fetched: {error.reason}") from error
    except ImageError:
        raise
    except (OSError, ValueError, HTTPException) as error:  # a connection that breaks or stalls, or speaks no HTTP
        raise ImageError(f"{name} cannot be fetched: {error or type(error).__name__}") from error
    return b"".join(chunks)


def _checked_url(url: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError as error:
        raise ImageError(f"a URL must be valid: {error}") from error
    if not host:
        raise ImageError("a URL must name a host")
    return url


def _request(url: str) -> request.Request:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    # What is quoted already stays so.
    path, query = (quote(part, safe="/%:=&?~#+!$,;'@()*[]") for part in (parts.path, parts.query))
    plain = urlunsplit((parts.scheme, host, path, query, ""))
    wanted = request.Request(plain, headers={"User-Agent": "sbert-ray"})
    if at:  # which a redirection to another host must not pass on
        wanted.add_unredirected_header("Authorization", f"Basic {base64.b64encode(unquote_to_bytes(user)).decode()}")
    return wanted


def _web() -> request.OpenerDirector:
    """Return an opener that, unlike urllib's own, follows no redirection to files or FTP."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
