"""The student: any Hugging Face causal language model, pinned.

Identity: the content of a local folder's model and tokenizer files, or a hub id's resolved commit; dtype, maximal
length and attention implementation. The device is a runtime field. Nothing is loaded before `load`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from srecycle.config import Component, component, runtime
from srecycle.digest import folder_digest
from srecycle.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model in memory, in evaluation mode, with its tokenizer and device. `max_length` is in tokens."""

    model: Any
    tokenizer: Any
    device: "torch.device"
    max_length: int


@component
class Student(Component):
    """A causal language model at `path`: a folder, or a hub id at a `revision`.

    `max_length` (tokens, for scoring and training alike) is cut to what model and tokenizer can take. `threads` is the
    number of CPU threads (default: torch's own choice), `device` "auto", "cpu", "cuda", "cuda:1", ...
    """

    path: str
    hub_revision: str = "main"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    max_length: Annotated[int, Field(ge=8)] = 2048
    trust_remote_code: bool = False
    device: str = runtime("auto")
    threads: Annotated[int, Field(ge=1)] | None = runtime(None)

    def resolved(self) -> Mapping[str, Any]:
        """A folder stands as the digest of its files, a hub id as its commit."""
        return {"path": self._content, "hub_revision": None if self._folder else self._commit}

    @property
    def base(self) -> dict[str, str | None]:
        """How an adapter on top names this model, in PEFT's own fields."""
        return {"base_model_name_or_path": self.path, "revision": None if self._folder else self._commit}

    def check(self) -> None:
        """Raise UserError where the device isn't there."""
        _device(self.device)

    def load(self) -> Loaded:
        """Load the tokenizer and the model. Raises UserError where they can't be loaded."""
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self._place,
                dtype=getattr(torch, self.dtype),
                attn_implementation=self.attention,
                use_safetensors=True,
                **self._from,
            )
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"the student {self.path} can't be loaded: {error}") from error
        device = torch.device(_device(self.device))
        tokenizer = self.tokenizer()
        positions = getattr(model.config, "max_position_embeddings", None) or self.max_length
        length = min(self.max_length, positions, int(tokenizer.model_max_length))
        return Loaded(model=model.to(device).eval(), tokenizer=tokenizer, device=device, max_length=length)

    def tokenizer(self) -> Any:
        """Load the tokenizer alone. Raises UserError where it can't be loaded."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self._place, **self._from)
        except (OSError, ValueError) as error:
            raise UserError(f"the tokenizer of {self.path} can't be loaded: {error}") from error

    @property
    def _place(self) -> str:
        """What the library is to load: it would take `~` for a name."""
        return str(self._folder or self.path)

    @property
    def _from(self) -> dict[str, Any]:
        pinned = {} if self._folder else {"revision": self._commit}
        return {"trust_remote_code": self.trust_remote_code, **pinned}

    @cached_property
    def _folder(self) -> Path | None:
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise UserError(f"student.path={self.path} has no config.json: give a Hugging Face model folder")
            return folder
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", self.path):
            raise UserError(f"student.path={self.path} is not a folder: give a model folder, or a hub id like org/name")
        return None

    @cached_property
    def _content(self) -> str:
        if self._folder:
            documents = ("README.md", "LICENSE", "LICENSE.txt")
            names = {path.name for path in self._folder.iterdir() if path.is_file()} - set(documents)
            return f"sha256:{folder_digest(self._folder, names)}"
        return self.path

    @cached_property
    def _commit(self) -> str:
        """The hub's commit behind `hub_revision`: from the hub, or offline from the local cache."""
        from huggingface_hub import HfApi, constants, try_to_load_from_cache

        cached = try_to_load_from_cache(self.path, "config.json", revision=self.hub_revision)
        if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") == "1":
            if isinstance(cached, str):
                return Path(cached).parent.name
            raise UserError(f"student.path={self.path} is not a folder, nor in the local hub cache, and the hub is off")
        try:
            return str(HfApi().model_info(self.path, revision=self.hub_revision).sha)
        except Exception as error:  # which http library raises here changes with the hub's client
            if isinstance(cached, str):
                return Path(cached).parent.name
            raise UserError(
                f"student.path={self.path} is not a folder here, and the hub can't be asked for it "
                f"({type(error).__name__}): check the path, the id, or the connection"
            ) from error


def _device(wanted: str) -> str:
    import torch

    try:
        torch.device("cpu" if wanted == "auto" else wanted)
    except RuntimeError as error:
        raise UserError(f"student.device={wanted} is no device: use auto, cpu, cuda or cuda:NUMBER") from error
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"student.device={wanted}, but torch sees no CUDA device: use student.device=auto or cpu")
    return wanted
