"""Where records stand: a file, a folder of shards, or a data set of the Hugging Face hub, pinned to its content.

A file or folder is identified by its content, a hub data set by the commit behind its revision, its configuration and
its split. Which files make up a split, and in which order, is what `datasets` says, so a record has the place that
`load_dataset` gives it, and a folder is read as the hub would read it. Code in a data set is never run. The hub's files
are downloaded one after another, each whole before it is read, to the hub's own cache; from there they are read in
streams.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from srecycle.data.files import SUFFIXES, is_readable, records
from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.store import write_json


def is_hub_id(path: str) -> bool:
    """Say whether a path has the form of a hub id, like `org/name`."""
    return re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", path) is not None and not is_readable(path)


@dataclass(frozen=True, kw_only=True)
class PinnedData:
    """What a user names by a path. `setting` is that path's in messages; the others stand beside it, in its group."""

    setting: str
    path: str
    revision: str = "main"
    configuration: str | None = None
    split: str = "train"

    def resolved(self) -> Mapping[str, str | None]:
        """Return what stands for the path and the revision in an identity. Raises UserError."""
        if self.is_on_hub:
            return {"path": self.path, "hub_revision": self.commit}
        self._refuse_settings_without_use()
        if not self._is_folder:
            return {"path": file_digest(Path(self.path)), "hub_revision": None}
        digests = "\n".join(map(file_digest, self._shards()))
        return {"path": f"sha256:{hashlib.sha256(digests.encode()).hexdigest()}", "hub_revision": None}

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records, in order. Raises UserError where they can't be had or read."""
        self._refuse_settings_without_use()
        if self.is_on_hub:
            for name in self._files(self._remembered_splits()):
                yield from records(self._downloaded(name))
        elif self._is_folder:
            for file in self._shards():
                yield from records(file)
        else:
            yield from records(Path(self.path))

    @property
    def is_on_hub(self) -> bool:
        """Whether the path is a hub id. What lies here by that name goes first."""
        return is_hub_id(self.path) and not Path(self.path).exists()

    @property
    def commit(self) -> str:
        """The commit behind the revision: from the hub, or where it can't be reached from the local cache.

        It is asked for once a process, so that all of a run reads the same. Raises UserError.
        """
        from huggingface_hub import constants
        from huggingface_hub.errors import RevisionResolutionError

        try:
            return _commit(self.path, self.revision)
        except RevisionResolutionError as error:
            if constants.HF_HUB_OFFLINE:
                raise UserError(
                    f"{self._named} is neither a file or folder nor in the local hub cache; the hub is off"
                ) from error
            raise UserError(
                f"{self._named} is no file or folder here, and the hub can't be reached at {constants.ENDPOINT}: "
                "check the path, or the connection"
            ) from error
        except Exception as error:  # the hub's own, and those of the http library that it uses
            raise self._refused(error) from error

    @property
    def _is_folder(self) -> bool:
        try:
            return Path(self.path).is_dir()
        except OSError:  # a name too long, say: reading it as a file tells
            return False

    @property
    def _named(self) -> str:
        return f"{self.setting}={self.path}"

    def _beside(self, name: str) -> str:
        return self.setting.removesuffix("path") + name

    def _refuse_settings_without_use(self) -> None:
        if self.is_on_hub:
            return
        without_use = {"hub_revision": (self.revision, "main")}
        if not self._is_folder:
            without_use |= {"split": (self.split, "train"), "configuration": (self.configuration or "", "")}
        for name, (value, default) in without_use.items():
            if value != default:
                kind = "folder" if self._is_folder else "file"
                raise UserError(
                    f"{self._beside(name)}={value} means nothing here: {self._named} is no hub id but a {kind}"
                )

    def _shards(self) -> list[Path]:
        """Return the split's files in the folder. Raises UserError where another file would be left out unsaid."""
        folder = Path(self.path).resolve()
        splits = self._splits(str(folder), below=f"{folder}/")
        shards = [folder / name for name in self._files(splits)]
        used = {name for names in splits.values() for name in names}
        kinds = SUFFIXES if any(".json" in file.suffixes for file in shards) else SUFFIXES - {".json"}
        there = (file.relative_to(folder) for file in folder.rglob("*") if is_readable(file.name, kinds))
        stray = sorted(file.as_posix() for file in there if not any(part.startswith(".") for part in file.parts))
        if self.configuration is None and (others := [name for name in stray if name not in used]):
            raise UserError(
                f"{self._named}: {others[0]} belongs to none of the splits found, {', '.join(splits)}: "
                "name the files by split (train-0.jsonl, ...), or move it away"
            )
        return shards

    def _files(self, splits: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the names of the split's files, in order. Raises UserError where there is no such split."""
        if self.split not in splits:
            raise UserError(
                f"{self._named}: the split {self.split} can't be loaded: choose one of its own, {', '.join(splits)}"
            )
        files = list(splits[self.split])
        if unread := [name for name in files if not is_readable(name)]:
            raise UserError(f"{self._named}: {unread[0]} is of another kind than {_KINDS}{self._copy}")
        return files

    def _remembered_splits(self) -> Mapping[str, Sequence[str]]:
        """Return the files of the hub's splits. They are kept beside the digests, for when the hub can't be reached."""
        from huggingface_hub import constants

        key = hashlib.sha256(json.dumps([self.path, self.commit, self.configuration]).encode()).hexdigest()
        memo = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srecycle" / "hub" / f"{key}.json"
        try:
            return dict(json.loads(memo.read_text()))
        except (OSError, ValueError, TypeError):
            pass  # not asked yet, or what was kept is damaged
        if constants.HF_HUB_OFFLINE:
            raise UserError(f"{self._named} at {self.commit} is not in the local hub cache, and the hub is off")
        self._require_access()
        place = f"hf://datasets/{self.path}"
        splits = self._splits(place, below=f"{place}@{self.commit}/", commit=self.commit)
        try:
            memo.parent.mkdir(parents=True, exist_ok=True)
            write_json(memo, list(splits.items()))
        except OSError:
            pass  # a read-only home only means that the next run asks again
        return splits

    def _splits(self, place: str, below: str, commit: str | None = None) -> dict[str, list[str]]:
        """Return the names of every split's files, as they stand below the place. Raises UserError."""
        from datasets import load_dataset_builder

        logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)  # a card without metadata is no news
        try:
            builder = load_dataset_builder(place, self.configuration, revision=commit)
        except Exception as error:  # the library raises its own, the hub's, and plain ones
            raise self._refused(error) from error
        splits: dict[str, list[str]] = {}
        for split, files in (builder.config.data_files or {}).items():
            for file in map(str, files):
                # A card may name files anywhere, of which no commit and no digest would tell.
                if not file.startswith(below) or ".." in Path(file).parts:
                    raise UserError(f"{self._named} names a file that lies elsewhere, {file}: it is not read")
                splits.setdefault(str(split), []).append(file.removeprefix(below))
        if not splits:
            raise UserError(f"{self._named} holds no files of records: expected {_KINDS}")
        return splits

    def _require_access(self) -> None:
        from huggingface_hub import HfApi

        try:
            HfApi().auth_check(self.path, repo_type="dataset")
        except Exception as error:  # as above
            raise self._refused(error) from error

    def _downloaded(self, name: str) -> Path:
        """Return the whole file, from the cache or the hub. Raises UserError."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.path, name, repo_type="dataset", revision=self.commit))
        except Exception as error:  # as above
            raise UserError(
                f"{self._named}: {name} can't be downloaded ({_words(error)}): check the connection and run it again; "
                "the files that came whole are kept"
            ) from error

    def _refused(self, error: Exception) -> UserError:
        """Put an error of the hub, or of `datasets`, in a line."""
        from huggingface_hub import constants
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        if isinstance(error, GatedRepoError):
            return UserError(
                f"{self._named} is gated: accept its terms at {constants.ENDPOINT}/datasets/{self.path}, then set "
                "HF_TOKEN to a token of yours, or run `hf auth login`"
            )
        if isinstance(error, RepositoryNotFoundError):
            return UserError(
                f"{self._named} is no file or folder here, and the hub shows no data set of that name: check the path "
                "or the id; for a private one set HF_TOKEN, or run `hf auth login`"
            )
        if isinstance(error, RevisionNotFoundError):
            return UserError(
                f"{self._named} has no revision {self.revision} on the hub ({self._beside('hub_revision')})"
            )
        told = _words(error)
        if "config" in told.lower():
            told += f"; choose one by {self._beside('configuration')}"
        return UserError(f"{self._named} can't be loaded: {told}{self._copy if 'script' in told else ''}")

    @property
    def _copy(self) -> str:
        """Tell of the copies in parquet that the hub makes of most data sets."""
        told = f"; the hub may have a copy in parquet: {self._beside('hub_revision')}=refs/convert/parquet"
        return told if self.is_on_hub else ""


_KINDS = "parquet, JSON lines or JSON arrays (.parquet, .jsonl, .json; the latter two also as .gz or .zst)"


@cache
def _commit(name: str, revision: str) -> str:
    from huggingface_hub import HfApi

    return HfApi().resolve_revision(name, repo_type="dataset", revision=revision).resolved


def _words(error: Exception) -> str:
    """Return an error's first words on one line, without what addresses carry behind `?`: a signature, say."""
    words = " ".join(re.split("Example of usage| with any supported extension", str(error))[0].split())
    told = re.sub(r"\?\S*", "", words)[:300]
    return f"{type(error).__name__}: {told}" if told else type(error).__name__
