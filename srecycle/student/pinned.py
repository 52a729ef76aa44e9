"""What a user names by a path: a local folder, or a hub id at a revision, pinned to its content.

A folder is identified by a digest of its files, a hub id by the commit behind its revision. Nothing is downloaded
before `local`.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from srecycle.digest import folder_digest
from srecycle.errors import UserError

_DOCUMENTS = ("README.md", "LICENSE", "LICENSE.txt")


def _hub_is_off() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_HUB_OFFLINE") == "1"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file system takes
        return False


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """`field` names the setting in messages, `config` is the file that makes a folder what it should be.

    `files` are those that count for the content; none means all but documents.
    """

    field: str
    path: str
    revision: str
    config: str
    files: Sequence[str] = ()

    @cached_property
    def folder(self) -> Path | None:
        """The local folder, or None for a hub id. Raises UserError where it can be neither."""
        folder = Path(self.path).expanduser()
        if _is_folder(folder):
            if not (folder / self.config).is_file():
                raise UserError(f"{self.field}={self.path} has no {self.config}: give {self._what} folder")
            return folder
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", self.path):
            raise UserError(
                f"{self.field}={self.path} is not a folder: give {self._what} folder, or a hub id like org/name"
            )
        return None

    @cached_property
    def content(self) -> str:
        """What stands for the path in an identity: the digest of a folder's files, or the hub id."""
        if self.folder is None:
            return self.path
        names = {path.name for path in self.folder.iterdir() if path.is_file()}
        return f"sha256:{folder_digest(self.folder, names & set(self.files) or names - set(_DOCUMENTS))}"

    @cached_property
    def commit(self) -> str | None:
        """The hub's commit behind the revision, from the hub, or offline from the local cache; None for a folder."""
        if self.folder is not None:
            return None
        from huggingface_hub import HfApi, try_to_load_from_cache

        cached = try_to_load_from_cache(self.path, self.config, revision=self.revision)
        if _hub_is_off():
            if isinstance(cached, str):
                return Path(cached).parent.name
            raise UserError(f"{self.field}={self.path} is not a folder, nor in the local hub cache, and the hub is off")
        try:
            return str(HfApi().model_info(self.path, revision=self.revision).sha)
        except Exception as error:  # which http library raises here changes with the hub's client
            if isinstance(cached, str):
                return Path(cached).parent.name
            raise UserError(
                f"{self.field}={self.path} is not a folder here, and the hub can't be asked for it "
                f"({type(error).__name__}): check the path, the id, or the connection"
            ) from error

    @property
    def here(self) -> Path | None:
        """The folder that has to hold all of it already: the local one, or while the hub is off its cache's."""
        if self.folder is not None or not _hub_is_off():
            return self.folder
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.path, self.config, revision=self.revision)
        return Path(cached).parent if isinstance(cached, str) else None

    @property
    def named(self) -> str:
        """The content as one text: a folder's digest, or a hub id and its commit."""
        return f"{self.content}@{self.commit}" if self.commit else self.content

    def local(self) -> Path:
        """Return a folder that holds `files`, downloaded where needed. Raises UserError."""
        if self.folder is not None:
            return self.folder
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.path, revision=self.commit, allow_patterns=list(self.files) or None))
        except Exception as error:  # as above
            raise UserError(f"{self.field}={self.path} can't be downloaded: {' '.join(str(error).split())}") from error

    @property
    def _what(self) -> str:
        return "a model" if self.config == "config.json" else "an adapter"
