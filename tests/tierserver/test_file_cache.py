"""A tier server's files: by digest, within a size, and never at a path that came over the network."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierserver.errors import NotFound, RequestError, TierError, TooLarge
from tierserver.file_cache import FileCache


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[FileCache]:
    cache = FileCache(tmp_path / "cache", max_bytes=100)
    yield cache
    cache.close()


def put(cache: FileCache, content: bytes, *, declared: bytes | None = None) -> str:
    digest = hashlib.sha256(content if declared is None else declared).hexdigest()
    with cache.receiving(digest, len(content)) as upload:
        upload.write(content)
        upload.finish()
    return digest


def test_a_file_is_kept_once_it_is_whole_and_its_bytes_are_its_digest(cache: FileCache) -> None:
    digest = put(cache, b"model")
    assert cache.missing([digest, "0" * 64, "0" * 64]) == ("0" * 64,)
    with pytest.raises(RequestError, match=r"the bytes have the SHA-256"):
        put(cache, b"other", declared=b"bytes")
    with pytest.raises(RequestError, match=r"the bytes have"), cache.receiving("1" * 64, 9) as upload:
        upload.write(b"short")
        upload.finish()
    with pytest.raises(TooLarge, match=r"Content-Length"), cache.receiving("1" * 64, 3) as upload:
        upload.write(b"long")
    with cache.receiving("2" * 64, 3) as upload:
        upload.write(b"cut")  # the connection ended before the check
    assert cache.missing(["1" * 64, "2" * 64]) == ("1" * 64, "2" * 64)


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n", "", "0" * 62 + "/."]
)
def test_what_is_no_digest_names_nothing(cache: FileCache, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    for action in (
        lambda: cache.missing([name]),
        lambda: cache.discard(name),
        lambda: cache.receiving(name, 1).__enter__(),
    ):
        with pytest.raises(RequestError, match=r"is not a SHA-256"):
            action()
    assert sorted(tmp_path.rglob("*")) == before


def test_names_in_commands_are_keys_and_only_plain_ones_are_names_on_disk(cache: FileCache, tmp_path: Path) -> None:
    digest = put(cache, b"content")
    names = [
        "model/net.onnx",
        "model/net.onnx.data",
        "inputs/../../evil",
        "inputs/a b/é.png",
        "../up",
        "inputs/.hidden",
    ]
    with cache.linked(dict.fromkeys(names, digest)) as paths:
        assert {name: path.read_bytes() for name, path in paths.items()} == dict.fromkeys(names, b"content")
        assert all(path.resolve().is_relative_to(tmp_path / "cache/launches") for path in paths.values())
        # A model finds its external data beside it, under the name that the model says.
        assert paths["model/net.onnx"].with_name("net.onnx.data") == paths["model/net.onnx.data"]
        assert all(path.name.startswith("~") for name, path in paths.items() if name.startswith("inputs/"))
    assert not any((tmp_path / "cache/launches").iterdir())


def test_files_used_longest_ago_give_way(cache: FileCache) -> None:
    first, second = put(cache, b"a" * 40), put(cache, b"b" * 40)
    for age, digest in ((20, first), (10, second)):
        path = cache._path(digest)
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    with cache.linked({"model/a": first}) as paths:  # used again, so that it is the younger one
        third = put(cache, b"c" * 50)
        assert cache.missing([first, second, third]) == (second,)
        put(cache, b"d" * 90)
        assert paths["model/a"].read_bytes() == b"a" * 40  # what a launch uses stays until its end
    with (
        pytest.raises(NotFound, match=r"1 of 1 files are not in the cache.*--cache-bytes"),
        cache.linked({"model/a": first}),
    ):
        pass
    with cache.receiving("1" * 64, 60), pytest.raises(TooLarge, match=r"files of 0 MiB at once"):
        put(cache, b"f" * 41)
    with pytest.raises(TooLarge, match=r"start it with a larger --cache-bytes"):
        put(cache, b"e" * 101)


def test_one_server_owns_a_directory_and_removes_what_a_killed_one_left(cache: FileCache, tmp_path: Path) -> None:
    with pytest.raises(TierError, match=r"another tier server uses .*name another directory with --cache"):
        FileCache(tmp_path / "cache", max_bytes=100)
    digest = put(cache, b"kept")
    (tmp_path / "cache/launches/old").mkdir()
    (tmp_path / "cache/incoming/half").write_bytes(b"x")
    cache.close()
    again = FileCache(tmp_path / "cache", max_bytes=100)
    assert again.missing([digest]) == ()
    assert not any((tmp_path / "cache/launches").iterdir()) and not any((tmp_path / "cache/incoming").iterdir())
    again.close()
