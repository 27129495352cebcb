"""Listing: a file, a folder or a glob on any file system gives the same names in the same order."""

import errno
import os
import re
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sbert_ray.data.errors import InputError
from sbert_ray.data.listing import OUTPUT_FILE, check_apart, list_files

FILES = [
    "a.parquet",
    "b.pq",
    "deep/er/c.parquet",
    "deep/d.parquet",
    "README.md",
    "_SUCCESS",
    ".hidden.parquet",
    "_temporary/e.parquet",
    "deep/.tmp/f.parquet",
    "deep/_g.parquet",
]
NAMES = ["a.parquet", "b.pq", "deep/d.parquet", "deep/er/c.parquet"]


@pytest.fixture(params=["path", "file://", "memory://"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with data files and others, by path and by URL."""
    url = {
        "path": str(tmp_path / "in"),
        "file://": f"file://{tmp_path}/in",
        "memory://": f"memory://{uuid.uuid4().hex}",
    }
    fs, path = fsspec.core.url_to_fs(url[request.param])
    for name in FILES:
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", b"12345")
    return url[request.param]


def names(url: str) -> list[str]:
    return [file.name for file in list_files(url)[1]]


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_holds_its_visible_data_files(end: str, root: str) -> None:
    storage, files = list_files(root + end)
    assert [file.name for file in files] == NAMES
    assert {file.size for file in files} == {5}
    assert all(storage.read(file.name) == b"12345" for file in files)


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.parquet", ["a.parquet"]),
        ("?.p*", ["a.parquet", "b.pq"]),
        ("[ab].*", ["a.parquet", "b.pq"]),
        ("**/*.parquet", [name for name in NAMES if name != "b.pq"]),
        ("deep/*.parquet", ["d.parquet"]),
        ("de*/*.parquet", ["deep/d.parquet"]),
        ("d*", ["deep/d.parquet", "deep/er/c.parquet"]),
        ("*", NAMES),
    ],
)
def test_a_glob_gives_the_files_and_folders_that_match(glob: str, expected: list[str], root: str) -> None:
    storage, files = list_files(f"{root}/{glob}")
    assert [file.name for file in files] == expected
    assert all(storage.exists(file.name) for file in files)


def test_a_file_is_a_dataset(root: str) -> None:
    storage, files = list_files(f"{root}/deep/d.parquet")
    assert [file.name for file in files] == ["d.parquet"]
    assert storage.read("d.parquet") == b"12345"


def test_nothing_to_read_is_told_with_what_is_there(root: str) -> None:
    with pytest.raises(
        InputError, match=r"no Parquet or JSONL files at .*/\*\.md; it has \['README.md'\]; known suffixes"
    ):
        list_files(f"{root}/*.md")
    with pytest.raises(InputError, match=r"no Parquet or JSONL files at .*/nowhere, or it does not exist"):
        list_files(f"{root}/nowhere")


def test_a_file_that_appears_is_seen(root: str) -> None:
    assert "new.parquet" not in names(root)
    fs, path = fsspec.core.url_to_fs(root)
    fs.pipe_file(f"{path}/new.parquet", b"1")
    assert "new.parquet" in names(root)


def test_relative_paths_are_known(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.parquet").write_bytes(b"1")
    assert names("x") == names("x/a.parquet") == names("x/*.parquet") == ["a.parquet"]


def test_a_name_may_look_like_a_glob(tmp_path: Path) -> None:
    (tmp_path / "part[1]").mkdir()
    (tmp_path / "part[1]" / "a?.parquet").write_bytes(b"1")
    assert names(str(tmp_path / "part[1]")) == ["a?.parquet"]
    assert names(str(tmp_path / "part[1]" / "a?.parquet")) == ["a?.parquet"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "x.parquet").write_bytes(b"12")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "file.parquet").symlink_to(tmp_path / "elsewhere" / "deep" / "x.parquet")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    expected = ["file.parquet", "folder/deep/x.parquet"]
    assert names(str(tmp_path / "in")) == expected
    assert [file.size for file in list_files(str(tmp_path / "in"))[1]] == [2, 2]
    assert names(f"{tmp_path}/in/f*") == expected


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.parquet").write_bytes(b"1")
    original = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"cannot read input .*Permission denied: .*/locked'"):
        list_files(str(tmp_path))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket/x", "cannot read input nosuch://bucket/x: Protocol not known: nosuch"),
        ("zip://*.parquet::file:///a.zip", "chained URLs are not known here"),
        (
            "http://127.0.0.1:9/x.parquet",
            "no Parquet or JSONL files at http://127.0.0.1:9/x.parquet, or it does not exist",
        ),
    ],
)
def test_what_cannot_be_reached_is_named(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("*", r"\*")):
        list_files(url)


def test_credentials_are_not_in_the_error_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def info(*arguments: Any, **options: Any) -> None:
        raise PermissionError("401, url='memory://me:secret@host/x?sig=secret'")

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    with pytest.raises(InputError, match=r"cannot read input memory://\*\*\*@host/x: 401, url='memory://\*") as raised:
        list_files("memory://me:secret@host/x")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("path", ["nowhere", "*.md", "a.md"])
def test_credentials_are_not_told(path: str) -> None:
    fsspec.filesystem("memory").pipe_file("/me:secret@host/a.md", b"1")
    with pytest.raises(InputError, match=r"no Parquet or JSONL files at memory://\*\*\*@host/") as raised:
        list_files(f"memory://me:secret@host/{path}")
    assert "secret" not in str(raised.value)


def test_a_failure_of_the_store_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        pass

    def info(*arguments: Any, **options: Any) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    with pytest.raises(InputError, match="cannot read input memory://x: Unable to locate credentials"):
        list_files("memory://x")


@pytest.fixture(params=["path", "file://", "memory://"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with a corpus in it."""
    base = f"memory://{uuid.uuid4().hex}" if request.param == "memory://" else str(tmp_path / "x")
    url = f"file://{base}" if request.param == "file://" else base
    fs, path = fsspec.core.url_to_fs(url)
    for name in ("in/a.parquet", "in/deep/b.parquet", "in/table.parquet/c.parquet", "data/d.parquet"):
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", b"1")
    return url


def is_apart(source: str, output: str) -> bool:
    try:
        check_apart(source, output)
    except InputError as error:
        message = str(error)
    else:
        return True
    assert re.match(r"--output \S+ (lies in|is the folder of) the input \S+; give an output elsewhere$", message)
    return False


@pytest.mark.parametrize(
    ("source", "output", "expected"),
    [
        ("in", "out", True),
        ("in", "in", False),
        ("in/", "in", False),
        ("in", "in/out", False),
        ("in", "in/deep/out/", False),
        ("in", "in/_out", True),
        ("in", "in/.out/1", True),
        ("in", "in2", True),
        ("in", "", True),
        ("data", "", False),
        ("in/a.parquet", "in", False),
        ("in/a.parquet", "in/out", True),
        ("in/a.parquet", "", True),
        ("in/table.parquet", "in", True),
        ("in/missing.parquet", "in", True),
        ("in/*.parquet", "in", False),
        ("in/*.parquet", "in/out", True),
        ("in/*.parquet", "in/out.parquet", False),
        ("in/*", "in/out", False),
        ("in/d*", "in/out", True),
        ("in/d*", "in/deep/out", False),
        ("in/**/*.parquet", "in/out", False),
        ("in/**/*.parquet", "in/_out", True),
        ("in/**/b*.parquet", "in/out", True),
        ("*/a.parquet", "out", True),
        ("*/*.parquet", "", False),
        ("i?/[ab].parquet", "in/out", True),
    ],
)
def test_an_output_is_apart_if_the_input_stays_the_same(corpus: str, source: str, output: str, expected: bool) -> None:
    source, output = (
        f"{corpus}/{source}",
        f"{corpus}/{output}".removesuffix("/") if not output else f"{corpus}/{output}",
    )
    before = None if "missing" in source else names(source)
    assert is_apart(source, output) is expected
    fs, path = fsspec.core.url_to_fs(output)
    for name in ("_manifest/plan.json", OUTPUT_FILE):
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", b"1")
    try:
        after: list[str] | None = names(source)
    except InputError:
        after = None
    assert (before == after) is expected


def test_links_do_not_hide_that_an_output_lies_in_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "out").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert not is_apart("link", "in/new")
    assert not is_apart("in", "link/new")
    assert not is_apart("in", "elsewhere/../in/new")
    assert not is_apart("link/*", f"file://{tmp_path}/in/new")
    assert not is_apart("in", "in/out")
    assert not is_apart("in", "link/out")
    assert is_apart("in/*.parquet", "link/out")
    assert is_apart("link", "elsewhere/new")


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("/data/in", "memory://data/in/out"),
        ("memory://bucket/in", "/bucket/in/out"),
        ("nosuch://bucket", "nosuch://bucket/out"),
        ("zip://*::file:///a.zip", "/a.zip/out"),
    ],
)
def test_other_stores_are_apart(source: str, output: str) -> None:
    assert is_apart(source, output)


def test_an_output_in_the_input_is_named_without_credentials() -> None:
    with pytest.raises(InputError, match=r"--output memory://\*\*\*@x/out lies in the input memory://\*\*\*@x; give"):
        check_apart("memory://me:secret@x", "memory://me:secret@x/out")


def test_the_version_of_a_file_changes_with_it(tmp_path: Path) -> None:
    def version() -> str:
        return list_files(str(tmp_path))[1][0].version

    (tmp_path / "a.jsonl").write_text("{}")
    os.utime(tmp_path / "a.jsonl", (1000, 1000))
    first = version()
    assert version() == first
    os.utime(tmp_path / "a.jsonl", (2000, 2000))
    assert version() != first
