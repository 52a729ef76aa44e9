"""Are a model's weights all there? Asked of their files' heads alone, before anybody is paid for a run with them."""

import json
from collections.abc import Sequence
from pathlib import Path

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"


def lacking(folder: Path) -> str | None:
    """Return what is missing of a model folder's safetensors, or torn in them; None where nothing is."""
    from safetensors import SafetensorError, safe_open

    here = sorted(folder.glob("*.safetensors"))
    if not here:
        pickled = sorted(folder.glob("*.bin"))
        beside = f" but {pickled[0].name}, a pickle, which is never loaded: save it as safetensors" if pickled else ""
        return f"no {_WHOLE}{beside}"
    for name in _shards(folder):
        if not (folder / name).is_file():
            return f"no {name}, which {_INDEX} names"
    for file in here:
        try:
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{file.name}: {' '.join(str(error).split())}"
    return None


def _shards(folder: Path) -> Sequence[str]:
    """Return the files that the index names; none where it can't be read: loading says why."""
    try:
        return sorted({str(name) for name in json.loads((folder / _INDEX).read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
