"""A training's checkpoints.

They stand in the stage's unfinished work (`.work` in its folder of the store). A training that ends takes them away.
One that was stopped or failed leaves the last two for good, each as large as what is trained and its optimizer: the
same command goes on from there. Where nobody wants that any more, the folder can be deleted.

A checkpoint counts once it is whole: its last file is a mark of ours. What is whole stays usable whatever stops a later
one (a kill, a full disk). Weights are safetensors; optimizer, scheduler and chance are what torch pickles, inside our
own scratch folder, and transformers loads them with `weights_only=True`: a pickle that does anything is refused, not
run.
(`training_args.bin` is pickled beside them by transformers, and read by nobody.)
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srecycle.errors import UserError

FINISHED = "srecycle_finished"


@contextmanager
def written(checkpoints: Path, step: int) -> Iterator[None]:
    """Say what to do where a checkpoint can't be written; what there is of it is removed, the earlier ones are kept."""
    try:
        yield
    except Exception as error:
        if not _of_the_disk(error):
            raise
        shutil.rmtree(checkpoints / f"checkpoint-{step}", ignore_errors=True)
        kept = last_whole(checkpoints)
        since = (
            f"the one of step {resumed_step(kept)} is whole, and training goes on from it" if kept else "none is yet"
        )
        raise UserError(
            f"the checkpoint of step {step} can't be written to {checkpoints} ({' '.join(str(error).split())[:200]}); "
            f"{since}: free some space, and run the same command again"
        ) from error


@contextmanager
def saved(folder: Path) -> Iterator[None]:
    """Say what to do where what was trained can't be written: its last step has a checkpoint, so none is done again."""
    try:
        yield
    except Exception as error:
        if not _of_the_disk(error):
            raise
        raise UserError(
            f"what was trained can't be written to {folder} ({' '.join(str(error).split())[:200]}); the last "
            "checkpoint is whole: free some space, and run the same command again"
        ) from error


def _of_the_disk(error: Exception) -> bool:
    """Say whether this may be a disk's fault: the system, torch, safetensors and tokenizers each raise their own kind.

    Anything else (a bug, a device without memory) shows as what it is.
    """
    from safetensors import SafetensorError

    if isinstance(error, RuntimeError):
        return bool(_TORCH_WRITING.search(str(error)))
    return isinstance(error, OSError | SafetensorError) or type(error) is Exception


_TORCH_WRITING = re.compile(r"PytorchStreamWriter|inline_container|iostream")
"""What torch's errors have in common that come of a file that can't be written."""


def last_whole(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that was written to its end, or None."""
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{FINISHED}")]
    return max(map(str, whole), key=resumed_step, default=None)


def drop_halves(checkpoints: Path) -> None:
    """Remove checkpoints that were not written to their end: transformers would count them among those it keeps."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / FINISHED).exists():
            shutil.rmtree(folder)


def resumed_step(checkpoint: str | None) -> int:
    """Return the step after which a checkpoint was written (the end of its name); 0 without one."""
    return int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0
