"""Storage: writes are all or nothing, creation is exclusive, and nothing temporary stays."""

import errno
import io
import os
import pickle
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from sbert_ray.data.errors import InputError
from sbert_ray.data.storage import Storage, is_redacted, redacted


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty folder on a disk, and one in an object store."""
    return Storage(str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out")


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def everything(storage: Storage) -> set[str]:
    return {path.removeprefix(storage._root).lstrip("/") for path in storage._fs.find(storage._root)}


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.write("a/b.txt", b"one")
    storage.write("a/b.txt", b"two")
    storage.write("c.txt", b"")
    assert (storage.read("a/b.txt"), storage.read("c.txt")) == (b"two", b"")
    with storage.open("a/b.txt") as file:
        assert file.read() == b"two"
    assert everything(storage) == {"a/b.txt", "c.txt"}


def test_sizes_are_those_of_the_files_in_one_folder(storage: Storage) -> None:
    storage.write("data/a", b"12345")
    storage.write("data/deeper/b", b"1")
    storage.write("c", b"1")
    assert storage.sizes("data") == {"a": 5}
    assert storage.sizes("nowhere") == {}


def test_exists_and_remove(storage: Storage) -> None:
    assert not storage.exists("a")
    storage.remove("a")
    storage.write("a", b"1")
    assert storage.exists("a")
    storage.remove("a")
    assert not storage.exists("a")
    with pytest.raises(FileNotFoundError):
        storage.read("a")


def test_what_another_process_writes_is_seen(storage: Storage) -> None:
    assert not storage.exists("data/a")
    assert storage.sizes("data") == {}
    Storage(storage.url).write("data/a", b"123")
    assert storage.exists("data/a")
    assert storage.sizes("data") == {"a": 3}


def test_create_keeps_what_is_there(storage: Storage) -> None:
    assert storage.create("a", b"first")
    assert not storage.create("a", b"second")
    assert storage.read("a") == b"first"
    assert everything(storage) == {"a"}


def test_of_many_threads_one_creates_the_file(local: Storage) -> None:
    contents = [str(index).encode() for index in range(32)]
    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(lambda data: local.create("a", data), contents))
    assert sum(created) == 1
    assert local.read("a") == contents[created.index(True)]
    assert everything(local) == {"a"}


def test_create_works_on_file_systems_without_hard_links(local: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Any, target: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert local.create("a", b"first")
    assert not local.create("a", b"second")
    assert local.read("a") == b"first"
    assert everything(local) == {"a"}


def test_another_failure_of_a_link_is_not_hidden(local: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="No space left"):
        local.create("a", b"first")
    assert everything(local) == set()


def test_a_write_that_fails_changes_nothing(local: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    local.write("a", b"before")

    def replace(source: Any, target: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="Input/output"):
        local.write("a", b"after")
    assert local.read("a") == b"before"
    assert everything(local) == {"a"}


def test_a_scratch_file_is_gone_after_a_failure(storage: Storage) -> None:
    written: list[Path] = []

    def fail() -> None:
        with storage.temporary("data/a") as path:
            path.write_bytes(b"half")
            written.append(path)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not written[0].exists()
    assert everything(storage) == set()


def test_publish_shows_the_whole_file_at_once(storage: Storage) -> None:
    with storage.temporary("data/a") as path:
        path.write_bytes(b"whole")
        assert not storage.exists("data/a")
        assert storage.publish(path, "data/a")
    assert storage.read("data/a") == b"whole"
    assert not path.exists()
    assert everything(storage) == {"data/a"}


@pytest.mark.parametrize("there", [True, False])
def test_a_store_may_refuse_a_second_file_with_any_error(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(f"memory://{uuid.uuid4().hex}")

    def put_file(*arguments: Any, **options: Any) -> None:
        assert options == {"mode": "create"}
        raise OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold")

    if there:
        storage.write("a", b"first")
    monkeypatch.setattr(type(storage._fs), "put_file", put_file)
    if there:
        assert not storage.create("a", b"second")
        assert storage.read("a") == b"first"
    else:
        with pytest.raises(OSError, match="pre-conditions"):
            storage.create("a", b"second")


class HttpError(Exception):
    """An error as the libraries of stores have it."""


class FaultyFile(io.BytesIO):
    """A file that can be opened and not read."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise HttpError("503, slow down")


class FaultyFileSystem(AbstractFileSystem):
    """A store in which nothing works."""

    protocol = "faulty"
    opens = False

    def _fail(self, *arguments: Any, **options: Any) -> None:
        raise HttpError("503, slow down")

    info = ls = cat_file = rm_file = pipe_file = put_file = _fail

    def _open(self, path: str, *arguments: Any, **options: Any) -> FaultyFile:
        if not self.opens:
            self._fail()
        return FaultyFile(b"text")


@pytest.fixture
def faulty() -> Storage:
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    return Storage("faulty://me:secret@bucket/out")


@pytest.mark.parametrize(
    "use",
    [
        lambda storage: storage.read("a"),
        lambda storage: storage.write("a", b""),
        lambda storage: storage.create("a", b""),
        lambda storage: storage.remove("a"),
        lambda storage: storage.sizes("data"),
        lambda storage: storage.exists("a"),
        lambda storage: storage.open("a").__enter__(),
    ],
    ids=["read", "write", "create", "remove", "sizes", "exists", "open"],
)
def test_an_error_of_a_stores_own_is_one_of_the_file_system(use: Callable[[Storage], Any], faulty: Storage) -> None:
    with pytest.raises(OSError, match=r"faulty://\*\*\*@bucket/out: 503, slow down") as raised:
        use(faulty)
    assert isinstance(raised.value.__cause__, HttpError)
    assert raised.value.errno == errno.EIO


def test_reading_an_open_file_fails_as_opening_it_does(faulty: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultyFileSystem, "opens", True)
    with faulty.open("a") as file:
        with pytest.raises(OSError, match="503, slow down"):
            file.read(1)
        with pytest.raises(OSError, match="503, slow down"):
            io.BufferedReader(file).readline()


def test_what_a_reader_makes_of_a_file_is_not_of_the_file_system() -> None:
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    storage.write("a", b"text")
    with pytest.raises(ValueError, match="invalid literal"), storage.open("a") as file:
        int(file.read())
    with storage.open("a") as file:
        assert (file.seek(1), file.read(2), file.tell(), file.read()) == (1, b"ex", 3, b"t")


def test_a_writable_folder_is_left_empty(storage: Storage) -> None:
    storage.check_writable()
    assert everything(storage) == set()


def test_an_unwritable_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    output = str(tmp_path / "file" / "out")
    with pytest.raises(InputError, match=r"cannot write to .*/file/out: .*; give a folder that can be written to"):
        Storage(output).check_writable()


def test_a_read_only_output_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_bytes(path: Path, data: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(InputError, match=r"cannot write to .*/out: .*Permission denied"):
        Storage(str(tmp_path / "out")).check_writable()


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(InputError, match="cannot write to nosuch://x: Protocol not known: nosuch"):
        Storage("nosuch://x").check_writable()


def test_a_copy_in_another_process_is_the_same_folder(storage: Storage) -> None:
    storage.write("a", b"1")
    again = pickle.loads(pickle.dumps(storage))
    assert again == storage
    assert again.read("a") == b"1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:secret@host/a/b.parquet", "https://***@host/a/b.parquet"),
        ("https://secret@host:8080/a", "https://***@host:8080/a"),
        ("ftp://me:sec@ret@host/a", "ftp://***@host/a"),
        ("https://host/a.parquet?X-Amz-Signature=secret&b=%2F", "https://host/a.parquet?***"),
        ("https://me:secret@host/a?secret", "https://***@host/a?***"),
        ("s3://me:secret@bucket/a?versionId=secret", "s3://***@bucket/a?***"),
        ("abfs://me:secret@host/a", "abfs://***@host/a"),
        ("simplecache::https://me:secret@host/a?sig=secret", "simplecache::https://***@host/a?***"),
        (
            "zip://*.parquet::https://a:secret@host/a.zip?k=secret::ftp://b:secret@host/c",
            "zip://*.parquet::https://***@host/a.zip?***::ftp://***@host/c",
        ),
        (
            "cannot read https://me:secret@h/a?b=secret: 404, url='https://me:secret@h/a?b=secret' at all",
            "cannot read https://***@h/a?*** 404, url='https://***@h/a?*** at all",
        ),
    ],
)
def test_credentials_are_taken_out_of_a_url(url: str, expected: str) -> None:
    assert redacted(url) == redacted(expected) == expected
    assert is_redacted(expected)
    assert not is_redacted(url)


@pytest.mark.parametrize(
    "url",
    [
        "/data/in/me@host/part-?.parquet",
        "/data/a?b=c",
        "s3://bucket/key/part-?.parquet",
        "s3://bucket/date=?/a***@b.parquet",
        "file:///home/me@work/a:b@c/***",
        "abfs://container@account.dfs.core.windows.net/a",
        "zip://*.parquet::/data/a@b.zip",
        "https://host:8080/a.parquet",
    ],
)
def test_a_url_without_credentials_stays_as_it_is(url: str) -> None:
    assert redacted(url) == url
    assert not is_redacted(url)


def test_a_refused_output_is_named_without_credentials() -> None:
    with pytest.raises(InputError, match=r"cannot write to nosuch://\*\*\*@x: Protocol not known"):
        Storage("nosuch://me:secret@x").check_writable()


def test_locations_are_paths_or_urls(tmp_path: Path) -> None:
    assert Storage(str(tmp_path)).locate("a/b") == f"{tmp_path}/a/b"
    assert Storage(f"file://{tmp_path}/").locate("a") == f"{tmp_path}/a"
    assert Storage("memory://x/y").locate("a").endswith("x/y/a")
    assert Storage("memory://x/y").locate("a").startswith("memory://")
