"""The images that rows name, as the bytes of their files."""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from actors.stages import Beat
from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import EXCERPT
from sbert_ray.data.storage import redacted

READERS = 16
"""Images that are fetched at the same time."""
TRIES = 3
PAUSE_SECONDS = 1.0
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hdfs", "file", "memory")
"""File systems that a row may name; others of fsspec start programs, read archives or call services."""
NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO)


def read_images(values: Sequence[Any], folder: str, beat: Beat) -> tuple[list[bytes | None], dict[int, str]]:
    """Return the bytes of each image, None where there are none, and why, by index.

    Args:
        values: N images as bytes, or paths and URLs of them; a relative path is one below ``folder``.
        folder: the folder of the input.
        beat: called now and then, as a sign of life.

    Raises:
        OSError: if a file system cannot be reached, which may pass.
    """
    images: list[bytes | None] = []
    faults: dict[int, str] = {}
    with ThreadPoolExecutor(READERS) as readers:
        # A window, so that those that are read wait for few that are slow.
        waiting = iter(values)
        for window in _windows(waiting, 4 * READERS):
            for image, fault in readers.map(lambda value: _read(value, folder), window):
                if fault is not None:
                    faults[len(images)] = fault
                images.append(image)
                beat(0)
    return images, faults


def _windows(values: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while window := list(islice(values, size)):
        yield window


def _read(value: Any, folder: str) -> tuple[bytes | None, str | None]:
    if value is None:
        return None, "the image is null"
    from sbert_ray.inference.images import ImageError, check_image

    try:
        image = value if isinstance(value, bytes) else _read_url(value, folder)
    except ImageError as error:
        return None, str(error)
    except NO_FILE as error:
        return None, _no_file(value, error)
    except OSError as error:
        if error.errno in NO_NAME:
            return None, _no_file(value, error)
        raise
    fault = check_image(image)
    return (None, fault) if fault else (image, None)


def _no_file(value: str, error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"there is no readable file {redacted(value)[:EXCERPT]!r}: {reason}"


def _read_url(value: str, folder: str) -> bytes:
    from sbert_ray.inference.images import MAX_BYTES, ImageError, data_of

    if value.startswith("data:"):
        return data_of(value)
    if value.startswith(("http://", "https://")):
        return _fetch(value)
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ImageError(f"{value[:EXCERPT]!r} is no name of a file")
    protocol = value.partition("://")[0] if "://" in value else None
    if protocol is not None and protocol not in STORES:
        raise ImageError(f"an image must be on the web or in one of {', '.join(STORES)}, got {redacted(value)!r}")
    if protocol is None and not value.startswith("/"):
        value = f"{folder.rstrip('/')}/{value}"
    elif protocol is None and "://" in folder:
        value = f"{folder.partition('://')[0]}://{value.lstrip('/')}"
    try:
        fs, path = url_to_fs(value)
    except ImportError as error:
        raise InputError(f"images are in {protocol}, which needs a package: {error}") from error
    if isinstance(fs, LocalFileSystem) and os.path.exists(path) and not os.path.isfile(path):
        raise ImageError(f"{redacted(value)!r} is no regular file")  # but a device or pipe, which may have no end
    data = bytes(fs.cat_file(path, end=MAX_BYTES + 1))
    if len(data) > MAX_BYTES:
        raise ImageError(f"{redacted(value)!r} is larger than {MAX_BYTES} bytes")
    return data


def _fetch(url: str) -> bytes:
    from sbert_ray.inference.images import ImageError, fetch

    for attempt in range(1, TRIES + 1):
        try:
            return fetch(url)
        except ImageError as error:
            # What the server says of the request stays so.
            if "HTTP status 4" in str(error) or attempt == TRIES:
                raise
            time.sleep(PAUSE_SECONDS * attempt)
    raise AssertionError("the last try returns or raises")
