"""What can't be written is told in a line; what is a bug shows as one."""

from pathlib import Path

import pytest
from safetensors import SafetensorError

from srecycle.errors import UserError
from srecycle.trainer.checkpoints import saved, written

OF_THE_DISK = (
    OSError(28, "No space left on device"),
    SafetensorError("I/O error: File too large"),
    RuntimeError("PytorchStreamWriter failed writing file"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1023296 vs 1023184"),
    RuntimeError("basic_ios::clear: iostream error"),
    Exception("No space left on device (os error 28)"),
)
OTHERS = (
    *(KeyError("weights"), TypeError("not callable"), AssertionError("ours"), ValueError("ours"), UserError("told")),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
)


@pytest.mark.parametrize("error", OF_THE_DISK, ids=repr)
def test_full_disk_is_a_line_that_says_what_to_do(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="free some space, and run the same command again"), saved(tmp_path):
        raise error
    (tmp_path / "checkpoint-4").mkdir()
    with pytest.raises(UserError, match=r"checkpoint of step 4 can't be written .* none is yet"), written(tmp_path, 4):
        raise error
    assert not (tmp_path / "checkpoint-4").exists()


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_anything_else_shows_as_what_it_is(error: Exception, tmp_path: Path) -> None:
    for context in (saved(tmp_path), written(tmp_path, 4)):
        with pytest.raises(type(error)) as raised, context:
            raise error
        assert raised.value is error
