"""A folder on any file system that fsspec knows, in which every write is all or nothing."""

import errno
import io
import os
import posixpath
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from sbert_ray.data.errors import Error, InputError

_MARK = "***"
_END = r"(?=::[\w+.-]+(?:://|::)|\s|$)"
_HTTP_QUERY = re.compile(rf"(https?://[^?]*)\?\S+?{_END}")
_QUERY = re.compile(rf"\?[\w.~%-]+=\S*?{_END}")
_USER = re.compile(r"(\w+)://([^/\s]*)@")
_WITH_CONTAINER = ("abfs", "abfss", "wasb", "wasbs")
"""Protocols of Azure, which write the name of a container where others have that of a user."""


def redacted(url: str) -> str:
    """Return a URL, or a text with URLs in it, without what may be secret: users, passwords and query strings.

    Whatever is stored or shown goes through this. Other text, paths and globs among it, comes back as it is.
    """
    if "://" not in url:
        return url
    text = _USER.sub(_without_user, url)
    return _QUERY.sub(f"?{_MARK}", _HTTP_QUERY.sub(rf"\1?{_MARK}", text))


def _without_user(match: re.Match[str]) -> str:
    protocol, user = match.groups()
    is_container = protocol in _WITH_CONTAINER and ":" not in user
    return match[0] if is_container else f"{protocol}://{_MARK}@"


def is_redacted(url: str) -> bool:
    """Whether something was taken out of a URL, so that it no longer leads anywhere."""
    return "://" in url and (f"://{_MARK}@" in url or f"?{_MARK}" in url)


@dataclass(frozen=True)
class Storage:
    """A folder, local or remote.

    Local files are written beside their place, flushed and renamed; on object stores a file is one upload, which the
    store itself makes visible as a whole or not at all.

    Args:
        url: a path, or a URL that fsspec knows, such as ``s3://bucket/corpus``.
    """

    url: str

    @cached_property
    def _fs(self) -> AbstractFileSystem:
        return url_to_fs(self.url)[0]

    @cached_property
    def _root(self) -> str:
        return str(url_to_fs(self.url)[1]).rstrip("/")

    @cached_property
    def _is_local(self) -> bool:
        return isinstance(self._fs, LocalFileSystem)

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}  # connections stay in the process that made them

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)

    def locate(self, name: str) -> str:
        """Return where ``name`` lies, as a path or URL that can be opened; for a message it must be ``redacted``."""
        return str(self._fs.unstrip_protocol(self._path(name))) if not self._is_local else self._path(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def check_writable(self) -> None:
        """Write and remove a file.

        Raises:
            InputError: if the folder cannot be written to.
        """
        probe = f".writable-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"")
            self.remove(probe)
        except Exception as error:
            message = f"cannot write to {self.url}: {error}; give a folder that can be written to"
            raise InputError(redacted(message)) from error

    def exists(self, name: str) -> bool:
        """Whether there is a file called ``name``, looked up anew."""
        try:
            with self._failures():
                self._forget_listings()
                if self._is_local:
                    return bool(self._fs.exists(self._path(name)))
                self._fs.info(self._path(name))  # the usual exists takes any failure for a file that is not there
        except FileNotFoundError:
            return False
        return True

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of each file in ``folder`` by its name, temporary files included; empty without one."""
        try:
            with self._failures():
                self._forget_listings()
                entries = self._fs.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {posixpath.basename(entry["name"]): entry["size"] for entry in entries if entry["type"] == "file"}

    def read(self, name: str) -> bytes:
        """Return the contents of ``name``."""
        with self._failures():
            self._forget_listings()
            return bytes(self._fs.cat_file(self._path(name)))

    @contextmanager
    def open(self, name: str, block_size: int | None = None) -> Iterator[BinaryIO]:
        """Open ``name`` for reading.

        Args:
            name: relative to the folder.
            block_size: bytes that a remote store reads ahead; None: its default, many megabytes.
        """
        with self._failures():
            opened = self._fs.open(self._path(name), "rb", block_size=block_size)
        with opened as file:
            yield file if self._is_local else cast("BinaryIO", _RemoteFile(file, self._failures))

    def remove(self, name: str) -> None:
        """Remove ``name`` if it is there."""
        try:
            with self._failures():
                self._fs.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def write(self, name: str, data: bytes) -> None:
        """Write ``name``, replacing what is there."""
        if not self._is_local:
            with self._failures():
                self._fs.pipe_file(self._path(name), data)
            return
        with self.temporary(name) as temporary:
            temporary.write_bytes(data)
            _flush(temporary)
            os.replace(temporary, self._path(name))
            _flush(Path(self._path(name)).parent)

    def create(self, name: str, data: bytes) -> bool:
        """Write ``name`` unless it exists; return whether it was written."""
        with self.temporary(name) as temporary:
            temporary.write_bytes(data)
            return self.publish(temporary, name)

    @contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """Yield the path of a local scratch file from which ``publish`` can make ``name``; it is gone afterwards."""
        if self._is_local:
            target = Path(self._path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            path = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        else:
            path = Path(tempfile.gettempdir()) / f"sbert-ray-{uuid.uuid4().hex}.tmp"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def publish(self, temporary: Path, name: str) -> bool:
        """Put a ``temporary`` file in place as ``name`` unless that exists; return whether it was put there."""
        if not self._is_local:
            return self._upload(temporary, name)
        target = Path(self._path(name))
        _flush(temporary)
        try:
            _place(temporary, target)
        except FileExistsError:
            return False
        _flush(target.parent)
        return True

    def _upload(self, temporary: Path, name: str) -> bool:
        try:
            with self._failures():
                self._forget_listings()  # a store without conditional writes looks whether the file is there
                self._fs.put_file(str(temporary), self._path(name), mode="create")
        except OSError:
            if self.exists(name):  # stores disagree on the error for a file that is there
                return False
            raise
        return True

    def _forget_listings(self) -> None:
        self._fs.invalidate_cache()  # other processes write here too

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn an error of a remote store's own into an OSError, which callers know how to handle."""
        try:
            yield
        except (OSError, Error):
            raise
        except Exception as error:
            if self._is_local:
                raise
            # with a number, since Arrow's errors about the bytes of a file are without one
            raise OSError(errno.EIO, redacted(f"{self.url}: {error or repr(error)}")) from error


class _RemoteFile(io.RawIOBase):
    """A file of a remote store, whose errors are OSErrors."""

    def __init__(self, file: Any, failures: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = file
        self._failures = failures

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with self._failures():
            return int(self._file.seek(offset, whence))

    def read(self, size: int | None = -1, /) -> bytes:
        with self._failures():
            return bytes(self._file.read(-1 if size is None else size))

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _place(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)  # a rename would replace what another attempt has put there
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if target.exists():  # a file system without hard links: two attempts may race here, with equal bytes
            raise FileExistsError(target) from error
        temporary.rename(target)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
