"""What is watched while TRL trains: progress, losses that are no numbers, and the wish to stop.

SIGTERM saves a checkpoint at the end of the step and then ends the process as it would have been ended; a second one
ends it at once.
"""

import math
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srecycle.errors import UserError
from srecycle.progress import Meter, metered, say
from srecycle.store import write_json
from srecycle.trainer.checkpoints import FINISHED, drop_halves, last_whole, resumed_step
from srecycle.trainer.order import Passes

if TYPE_CHECKING:
    from trl import SFTTrainer

_NAMED_ROWS = 8
STOPPED = "stopped.json"
"""Names the step and all rows of the batch at which a training stopped."""


def watched(trainer: "SFTTrainer", checkpoint: str | None, passes: Passes, ids: Sequence[str], scratch: Path) -> None:
    """Run a training to its end from a checkpoint, or from the start.

    Raises UserError where a loss is no number or a checkpoint can't be written, SystemExit after SIGTERM.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        drop_halves(Path(trainer.args.output_dir))
    with _term_noted() as term, metered("train", passes.steps, "steps") as meter:
        meter.resume_at(resumed_step(checkpoint))
        trainer.add_callback(_watch(trainer, passes=passes, ids=ids, scratch=scratch, meter=meter, term=term))
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"the checkpoint {checkpoint} holds more than numbers, or is damaged: remove it, and the same command "
                "goes on from the one before, or from the start"
            ) from error
    if term.is_set():
        say(f"  train: stopped after step {trainer.state.global_step}, which is saved; the same command goes on there")
        raise SystemExit(128 + signal.SIGTERM)


def require_finite(model: Any) -> None:
    """Refuse weights that are no numbers: the loss of the last step is taken before that step moves them."""
    for name, weight in model.named_parameters():
        here = weight.to_local() if hasattr(weight, "to_local") else weight  # a part of it under FSDP
        if weight.requires_grad and not bool(here.isfinite().all()):
            raise UserError(f"training made weights that are not finite ({name}): lower trainer.learning_rate")


def stopped(passes: Passes, ids: Sequence[str], scratch: Path, step: int, seen: str) -> UserError:
    """Return the error of a step whose figures are no numbers, and write all of its rows down."""
    rows = [ids[row] for row in passes.at(step)]
    write_json(scratch / STOPPED, {"step": step, "rows": rows, "seen": seen})
    more = f" and {len(rows) - _NAMED_ROWS} more, in {scratch / STOPPED}" if len(rows) > _NAMED_ROWS else ""
    last = last_whole(scratch / "checkpoints")
    kept = f"The checkpoint of step {resumed_step(last)} is kept" if last else "No checkpoint was written before"
    return UserError(
        f"training stopped: {seen} at step {step}, on rows {', '.join(rows[:_NAMED_ROWS])}{more}; lower "
        f"trainer.learning_rate, or use student.dtype=float32. {kept}, and a run with other settings is new"
    )


def _watch(
    trainer: "SFTTrainer",
    *,
    passes: Passes,
    ids: Sequence[str],
    scratch: Path,
    meter: Meter,
    term: threading.Event,
) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.places.number = state.global_step // passes.steps_per_pass

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.advance()
            if _anywhere(trainer, term):
                control.should_save = control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            for name in ("loss", "grad_norm"):
                value = (logs or {}).get(name)
                if value is not None and not math.isfinite(float(value)):
                    raise stopped(passes, ids, scratch, state.global_step, f"the {name} is {value}")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.accelerator.wait_for_everyone()
            if state.is_world_process_zero:
                Path(args.output_dir, f"checkpoint-{state.global_step}", FINISHED).touch()

    return Watch()


def _anywhere(trainer: "SFTTrainer", term: threading.Event) -> bool:
    """Return whether any process was told to stop: they must save the same step."""
    if trainer.accelerator.num_processes == 1:
        return term.is_set()
    import torch

    told = trainer.accelerator.reduce(torch.tensor(int(term.is_set()), device=trainer.accelerator.device))
    if int(told):
        term.set()
    return bool(told)


@contextmanager
def _term_noted() -> Iterator[threading.Event]:
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, frame: Any) -> None:
        noted.set()
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)
