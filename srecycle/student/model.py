"""The student: any Hugging Face causal language model, pinned, with adapters where some are given.

Identity: the content of a local folder's model and tokenizer files, or a hub id's resolved commit, and the same of the
adapters; dtype, maximal length and attention implementation. The device is a runtime field. Nothing is loaded before
`load`.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from srecycle.config import Component, component, runtime
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.student.adapter import UNDER, merge_all, pinned_adapter, under
from srecycle.student.pinned import Pinned
from srecycle.student.weights import lacking

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
    """A causal language model at `path`: a folder, or a hub id at a revision (`hub_revision`).

    `adapter`, a folder or a hub id at `adapter_revision`, is merged into the weights when they are loaded, in `dtype`,
    so that scoring, training and evaluation all start from one model. A training on top makes an adapter of that merged
    model, and says so in its configuration. `adapters` are further ones, merged after it in their order: each was
    trained on the model with all before it merged, as in rounds of training.

    `max_length` (tokens, for scoring and training alike) is cut to what model and tokenizer can take. `threads` is the
    number of CPU threads (default: torch's own choice), `device` "auto", "cpu", "cuda", "cuda:1", ...
    """

    path: str
    hub_revision: str = "main"
    adapter: str | None = None
    adapter_revision: str = "main"
    adapters: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    max_length: Annotated[int, Field(ge=8)] = 2048
    trust_remote_code: bool = False
    device: str = runtime("auto")
    threads: Annotated[int, Field(ge=1)] | None = runtime(None)

    def resolved(self) -> Mapping[str, Any]:
        """A folder stands as the digest of its files, a hub id as its commit."""
        adapter = self._adapter
        return {
            "path": self._model.content,
            "hub_revision": self._model.commit,
            "adapter": adapter and adapter.content,
            "adapter_revision": adapter and adapter.commit,
            "adapters": [one.named for one in self._adapters],
        }

    def trained(self, folder: Path) -> "Student":
        """Return the student that a training made of this one; `folder` is the training's artifact."""
        if (folder / "model").is_dir():  # all weights were trained, and stand there
            return replace(self, path=str(folder / "model"), hub_revision="main", adapter=None, adapters=())
        return replace(self, adapters=(*self.adapters, str(folder / "adapter")))

    @property
    def base(self) -> dict[str, str | None]:
        """How an adapter on top names this model: in PEFT's own fields, and by what is merged into it."""
        named = {"base_model_name_or_path": self.path, "revision": self._model.commit}
        return {**named, UNDER: under(self._chain)} if self._chain else named

    def check(self) -> None:
        """Raise UserError where the device isn't there, or can't do what is asked of it, or weights are missing."""
        device = _device(self.device)
        if (folder := self._model.here) and (reason := lacking(folder)):
            raise UserError(f"the student {self.path} can't be loaded: {reason}; {self._again}")
        if self.attention == "flash_attention_2":
            _require_flash_attention(device, self.dtype)

    def load(self, quantization: Any = None) -> Loaded:
        """Load the tokenizer and the model, with transformers' `quantization` of its weights where one is given.

        Raises UserError where they can't be loaded, or don't go together.
        """
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        self.check()
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self._place,
                dtype=getattr(torch, self.dtype),
                attn_implementation=self.attention,
                use_safetensors=True,
                **(
                    {"quantization_config": quantization, "device_map": {"": _device(self.device)}}
                    if quantization
                    else {}
                ),
                **self._from,
            )
        except Exception as error:  # a model is many libraries' files, and each has errors of its own
            of_attention = self.attention != "eager" and "attention" in str(error)
            hint = "try student.attention=eager" if of_attention else self._again
            # Weights that are pickles are refused; the library's advice is to allow them.
            reason = _line(error).partition(" Please do not set")[0]
            raise UserError(f"the student {self.path} can't be loaded: {reason}; {hint}") from error
        device = torch.device(_device(self.device))
        tokenizer = self.tokenizer()
        _require_embeddings(model, tokenizer, self.path)
        model = model if quantization else model.to(device)  # quantised weights are made on their device
        model = merge_all(model, self._chain, self.path)
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or self.max_length
        length = min(self.max_length, positions, int(tokenizer.model_max_length))
        return Loaded(model=model.eval(), tokenizer=tokenizer, device=device, max_length=length)

    def skeleton(self) -> Any:
        """Return the model without weights, as its configuration has it: the modules and their names."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        try:
            config = AutoConfig.from_pretrained(self._place, **self._from)
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(config, trust_remote_code=self.trust_remote_code)
        except Exception as error:  # a model is many libraries' files, and each has errors of its own
            raise UserError(f"the student {self.path} can't be loaded: {_line(error)}; {self._again}") from error

    def tokenizer(self) -> Any:
        """Load the tokenizer alone. Raises UserError where it can't be loaded."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self._place, **self._from)
        except Exception as error:  # that of a torn file is of no class of its own
            raise UserError(f"the tokenizer of {self.path} can't be loaded: {_line(error)}; {self._again}") from error

    @property
    def _again(self) -> str:
        """What to do where files are missing or torn."""
        if self._model.folder:
            return "if it was copied or saved only in part, do that again"
        place = f"{self.path} --revision {self._model.commit}"
        return f"if its download was interrupted, `hf download {place}` completes it"

    @property
    def _place(self) -> str:
        """What the library is to load: it would take `~` for a name."""
        return str(self._model.folder or self.path)

    @property
    def _from(self) -> dict[str, Any]:
        pinned = {"revision": self._model.commit} if self._model.commit else {}
        return {"trust_remote_code": self.trust_remote_code, **pinned}

    @cached_property
    def _model(self) -> Pinned:
        return Pinned(field="student.path", path=self.path, revision=self.hub_revision, config="config.json")

    @cached_property
    def _adapter(self) -> Pinned | None:
        return pinned_adapter(self.adapter, self.adapter_revision) if self.adapter else None

    @cached_property
    def _adapters(self) -> tuple[Pinned, ...]:
        return tuple(pinned_adapter(one, field="student.adapters") for one in self.adapters)

    @property
    def _chain(self) -> tuple[Pinned, ...]:
        """All adapters, in the order in which they are merged."""
        return (*([self._adapter] if self._adapter else []), *self._adapters)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _require_embeddings(model: Any, tokenizer: Any, path: str) -> None:
    """Refuse a tokenizer whose BOS, EOS or padding the model lacks; others are told, since texts may do without."""
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) <= known:
        return
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    said = f"the student {path} knows {known} tokens, but its tokenizer has {len(tokenizer)}"
    if missing := [name for name, number in ids.items() if number is not None and number >= known]:
        raise UserError(
            f"{said}, {missing[0].upper()} among the rest: give the tokenizer that the model was trained with"
        )
    say(f"  warning: {said}; a text that holds one of the rest can't be computed")


def _require_flash_attention(device: str, dtype: str) -> None:
    asked = "student.attention=flash_attention_2"
    if importlib.util.find_spec("flash_attn") is None:
        raise UserError(f"{asked}, but the package flash-attn isn't installed: install it, or use sdpa")
    if not device.startswith("cuda"):
        raise UserError(f"{asked} needs a CUDA device, and this is {device}: use sdpa")
    if dtype == "float32":
        raise UserError(f"{asked} can't compute in float32: use student.dtype=bfloat16, or sdpa")


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
