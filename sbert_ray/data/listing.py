"""Which files a path or URL stands for."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from sbert_ray.data.errors import InputError
from sbert_ray.data.jsonl import COMPRESSIONS
from sbert_ray.data.manifest import Manifest
from sbert_ray.data.storage import Storage, redacted

PARQUET = (".parquet", ".pq")
JSONL = tuple(stem + codec for stem in (".jsonl", ".ndjson", ".json") for codec in ("", *COMPRESSIONS))
GLOB = "*?["
SHOWN = 5
OUTPUT_FILE = "data/part-00000000.parquet"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a listing tells of a file."""

    name: str
    """Path relative to the folder that was listed."""
    size: int
    version: str
    """ETag of an object, or the time at which a file was last changed."""


def list_files(url: str) -> tuple[Storage, list[FileInfo]]:
    """Return the folder that ``url`` points into, and the data files there, in the order of their names.

    Files and folders whose names begin with a dot or an underscore are left out. Of a job's output, only what is in its
    manifest is there.

    Args:
        url: file, folder or glob, on any file system that fsspec knows.

    Raises:
        InputError: if there is none, or the folder cannot be read.
    """
    where = redacted(url)
    if "::" in url:
        raise InputError(f"cannot read input {where}: chained URLs are not known here; give a plain path or URL")
    try:
        fs, path = url_to_fs(url)
        fs.invalidate_cache()
        root, entries = _entries(fs, path.rstrip("/"))
    except Exception as error:
        raise InputError(redacted(f"cannot read input {url}: {error or repr(error)}")) from error
    storage = Storage(str(fs.unstrip_protocol(root)) if "://" in url else root or "/")
    start = len(root.rstrip("/")) + 1
    infos = {name[start:]: _info(name[start:], entry) for name, entry in entries.items()}
    if storage.exists(Manifest.PLAN):
        committed = Manifest.finished_files(storage)
        found = [FileInfo(name, size, "") for name, size in committed.items() if name in infos]
        if len(found) < len(committed) and not _is_glob(url):
            raise InputError(f"{where} lacks files that are in its manifest; run the job that made it again")
    else:
        found = [infos[name] for name in sorted(infos) if not _is_hidden(name) and name.endswith(PARQUET + JSONL)]
    if not found:
        shown = [redacted(storage.locate(name)).removeprefix(redacted(storage.locate(""))) for name in sorted(infos)]
        names = [name for name in shown if not _is_hidden(name)]
        what = f"; it has {names[:SHOWN]}" if names else ", or it does not exist"
        raise InputError(f"no Parquet or JSONL files at {where}{what}; known suffixes are {[*PARQUET, *JSONL]}")
    return storage, found


def check_apart(input_url: str, output_url: str) -> None:
    """Make sure that no file of an output is taken for input, since the next run would find another input then.

    Links are followed in both paths, but links to the output from somewhere within the input are not looked for.

    Raises:
        InputError: if one would be, or if the output's manifest would be taken for that of the input.
    """
    if "::" in input_url or "::" in output_url:
        return
    try:
        (fs, path), (output_fs, output) = url_to_fs(input_url), url_to_fs(output_url)
    except (ImportError, ValueError):
        return  # whoever opens them tells
    if fs != output_fs:
        return
    pairs = [(place, folder) for place in _places(fs, path) for folder in _places(fs, output)]
    shown = f"{redacted(input_url)}; give an output elsewhere"
    if any(_would_list(place, f"{folder}/{OUTPUT_FILE}") for place, folder in pairs):
        raise InputError(f"--output {redacted(output_url)} lies in the input {shown}")
    is_beside = any(folder == _fixed_folder(place) for place, folder in pairs)
    if is_beside and (fs.isfile(path) or (_is_glob(path) and not fs.isdir(path))):
        raise InputError(f"--output {redacted(output_url)} is the folder of the input {shown}")


def _places(fs: AbstractFileSystem, path: str) -> set[str]:
    """Return a path, and what it is with links followed, in full or but for its last part."""
    path = path.rstrip("/")
    if not isinstance(fs, LocalFileSystem):
        return {path}
    start = _fixed_folder(path) if _is_glob(path) else path
    folder, _, name = start.rpartition("/")
    resolved = (os.path.realpath(start or "/"), os.path.join(os.path.realpath(folder or "/"), name))
    return {path} | {place.rstrip("/") + path[len(start) :] for place in resolved}


def _is_glob(path: str) -> bool:
    return any(mark in path for mark in GLOB)


def _fixed_folder(path: str) -> str:
    """Return the last folder in a path before anything that a glob may match."""
    return path[: min((path.find(mark) for mark in GLOB if mark in path), default=len(path))].rpartition("/")[0]


def _would_list(path: str, file: str) -> bool:
    """Whether ``file`` would be among what a path or glob stands for."""
    root = path
    is_in = file.startswith(f"{path}/")
    if not is_in and _is_glob(path):
        root = _fixed_folder(path)
        ends = [index for index, letter in enumerate(file) if letter == "/"] + [len(file)]
        is_in = any(re.match(glob_translate(path), file[:end]) for end in ends)
    return is_in and not _is_hidden(file[len(root) + 1 :])


def _entries(fs: AbstractFileSystem, path: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the folder that names are relative to, and what a listing tells of each file in or at ``path``."""
    try:
        info = fs.info(path)
    except FileNotFoundError:
        info = None
    if info is None and _is_glob(path):
        matches = fs.glob(path, detail=True)
        return _fixed_folder(path), dict(_expanded(fs, matches.values(), set()))
    if info is None or info["type"] == "directory" or fs.isdir(path):
        return path, dict(_found(fs, path, set())) if info else {}
    return path.rpartition("/")[0], {path: info}


def _found(fs: AbstractFileSystem, folder: str, seen: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(fs, LocalFileSystem):
        yield from fs.find(folder, detail=True).items()
        return
    if (real := os.path.realpath(folder)) in seen:
        return  # a link to a folder that it is in
    yield from _expanded(fs, fs.ls(folder, detail=True), seen | {real})


def _expanded(
    fs: AbstractFileSystem, entries: Iterable[dict[str, Any]], seen: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the files among ``entries``, and those in the folders among them, links followed."""
    for entry in entries:
        if entry["type"] == "directory" or (entry.get("islink") and fs.isdir(entry["name"])):
            yield from _found(fs, entry["name"], seen)
        else:
            yield entry["name"], entry


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _info(name: str, entry: dict[str, Any]) -> FileInfo:
    version = next((entry[key] for key in ("ETag", "etag", "md5Hash", "mtime", "created") if key in entry), "unknown")
    return FileInfo(name, int(entry["size"] or 0), str(version))
