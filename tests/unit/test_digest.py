"""Digests of files and folders, and the memo of large ones."""

import hashlib
import os
from pathlib import Path

import pytest

from srecycle import digest
from srecycle.digest import file_digest, folder_digest
from srecycle.errors import UserError

LARGE = 1 << 20


def test_file_digest_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"content")
    assert file_digest(file) == hashlib.sha256(b"content").hexdigest()


def test_file_digest_large_file_changed_is_digested_anew(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"a" * LARGE)
    first = file_digest(file)
    assert file_digest(file) == first  # from the memo
    before = file.stat()
    file.write_bytes(b"b" * LARGE)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert file_digest(file) == hashlib.sha256(b"b" * LARGE).hexdigest() != first


def test_file_digest_memo_is_used_and_broken_memo_is_survived(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"a" * LARGE)
    right = file_digest(file)
    memo = tmp_path / "cache" / "srecycle" / "digests.json"
    memo.write_text(memo.read_text().replace(right, "0" * 64))
    assert file_digest(file) == "0" * 64  # so it was not hashed again
    for broken in ("", "[1]", "{"):
        memo.write_text(broken)
        assert file_digest(file) == right


def test_file_digest_read_only_cache_still_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    file = tmp_path / "large"
    file.write_bytes(b"a" * LARGE)
    assert file_digest(file) == hashlib.sha256(b"a" * LARGE).hexdigest()


def test_file_digest_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*No such file"):
        file_digest(tmp_path / "nowhere")


def _folder(root: Path, **files: str) -> Path:
    for name, content in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def test_folder_digest_depends_on_names_and_content_only(tmp_path: Path) -> None:
    one = _folder(tmp_path / "one", a="1", sub__b="2")
    other = _folder(tmp_path / "other", sub__b="2", a="1")
    _folder(other, **{".hidden": "3", ".git__config": "4"})
    assert folder_digest(one) == folder_digest(other)
    assert folder_digest(_folder(tmp_path / "content", a="1", sub__b="3")) != folder_digest(one)
    assert folder_digest(_folder(tmp_path / "name", a="1", sub__c="2")) != folder_digest(one)
    assert folder_digest(_folder(tmp_path / "place", a="1", b="2")) != folder_digest(one)


def test_folder_digest_names_restrict_it(tmp_path: Path) -> None:
    one = _folder(tmp_path / "one", a="1", b="2")
    other = _folder(tmp_path / "other", a="1", b="9")
    assert folder_digest(one, ["a"]) == folder_digest(other, ["a"])
    assert folder_digest(one, ["b"]) != folder_digest(other, ["b"])


def test_remembered_size_is_what_the_large_file_tests_assume() -> None:
    assert digest._REMEMBER_FROM_BYTES <= LARGE
