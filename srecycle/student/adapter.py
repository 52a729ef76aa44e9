"""Adapters that PEFT trained, merged into the weights that they were trained on.

Only safetensors are read: a pickled adapter runs what its author wrote. What PEFT would pass over in silence (weights
for layers that this model hasn't, layers without weights) is an error: half an adapter is another model.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srecycle.errors import UserError
from srecycle.progress import quiet_libraries
from srecycle.student.pinned import Pinned

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UNDER = "srecycle_adapter"
"""In an adapter's configuration: the adapters that had been merged into its base model before it was trained."""


def pinned_adapter(path: str, revision: str = "main", field: str = "student.adapter") -> Pinned:
    """Return an adapter by folder or hub id. Raises UserError where a folder holds none in safetensors."""
    adapter = Pinned(field=field, path=path, revision=revision, config=CONFIG, files=(CONFIG, WEIGHTS))
    if adapter.folder is not None:
        _require_weights(adapter)
    return adapter


def under(chain: Sequence[Pinned]) -> str:
    """Name adapters that are merged in this order."""
    return " ".join(one.named for one in chain)


def merge_all(model: Any, chain: Sequence[Pinned], base: str) -> Any:
    """Return the model with the adapters merged into its weights in this order; `base` is how the user names the model.

    Raises UserError where one is no whole safetensors adapter of this model, or was trained on others than those
    before it.
    """
    for number, adapter in enumerate(chain):
        model = _merge(model, adapter, base, under(chain[:number]))
    return model


def _merge(model: Any, adapter: Pinned, base: str, merged_before: str) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    folder = adapter.local()
    _require_weights(adapter)
    where = f"{adapter.field}={adapter.path}"
    _require_its_base(folder, where, base, merged_before)
    try:
        with quiet_libraries(), safe_open(folder / WEIGHTS, framework="pt") as weights:
            adapted = PeftModel.from_pretrained(model, folder, torch_device=str(model.device))
            given, wanted = set(weights.keys()), set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
            if given != wanted:
                strange = sorted(given ^ wanted)
                raise ValueError(f"{len(strange)} weights stand in only one of the two, as {strange[0]}")
            merged = adapted.merge_and_unload(safe_merge=True)
    except Exception as error:  # PEFT, safetensors and torch have no common kind of error for a file that doesn't fit
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{where} can't be merged into {base} ({reason}): is that the model it was trained on?"
        ) from error
    return merged.requires_grad_(True)  # PEFT froze the model to train an adapter: whoever trains next decides anew


def _require_weights(adapter: Pinned) -> None:
    folder = adapter.local()
    if (folder / WEIGHTS).is_file():
        return
    pickled = " but a pickled adapter_model.bin, which is never read" if (folder / "adapter_model.bin").exists() else ""
    raise UserError(f"{adapter.field}={adapter.path} has no {WEIGHTS}{pickled}: save the adapter as safetensors")


def _require_its_base(folder: Path, where: str, base: str, merged_before: str) -> None:
    """Refuse an adapter that stands on others than those that are merged: shapes wouldn't tell."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        wanted, named = config.get(UNDER), config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: {CONFIG} can't be read: {' '.join(str(error).split())}") from error
    same_base = named is not None and Path(named).expanduser() == Path(base).expanduser()
    if same_base and wanted not in (None, merged_before):
        raise UserError(
            f"{where} was trained on {base} with another adapter merged ({wanted}; here: {merged_before or 'none'}): "
            "list all of them in student.adapters, or save that student as a model folder, and give it as student.path"
        )
