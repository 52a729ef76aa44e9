"""What a run trained, on the Hugging Face hub: its adapter or model, tokenizer and model card.

    srecycle-study publish RUN --push OWNER/NAME [--base HUB_ID]

RUN is a run's folder, or its id or name in the store (of several of a name, the newest that trained). An adapter
names its base model: where that was a local folder, --base says which model on the hub it is. The repository is private
unless --public is given; the token is the hub's own (`hf auth login`, or HF_TOKEN). --out FOLDER leaves a copy of what
is uploaded; without --push that is all.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.report.runs import Run
from srecycle.study.export import empty_folder, found_run, push

_ADAPTER, _MODEL = "adapter", "model"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, id or name")
    parser.add_argument("--store", type=Path, default=Path(os.environ.get("SRECYCLE_STORE", "srecycle_store")))
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload to this model repository on the hub")
    parser.add_argument("--base", metavar="HUB_ID", help="the base model, where it was trained from a local folder")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="a new or empty folder for a copy")
    parser.add_argument("--public", action="store_true", help="make the repository public")


def run(options: argparse.Namespace) -> None:
    """Lay the files out, and upload them where asked."""
    if not options.push and options.out is None:
        raise UserError("nothing to do: give --push OWNER/NAME, or --out FOLDER")
    found = found_run(options.run, options.store, "train")
    with tempfile.TemporaryDirectory() as scratch:
        folder = empty_folder(options.out) if options.out is not None else Path(scratch)
        lay_out(found, folder, options.base)
        say(f"{found.name} ({found.id}): {', '.join(sorted(one.name for one in folder.iterdir()))}")
        if options.push:
            say(f"pushed: {push(folder, options.push, kind='model', public=options.public)}")


def lay_out(found: Run, folder: Path, base: str | None) -> None:
    """Copy what a run trained, with its card. Raises UserError where it trained nothing, or its base is only here."""
    made = found.artifact("train")
    whole = [made / name for name in (_ADAPTER, _MODEL) if made is not None and (made / name).is_dir()]
    if made is None or not whole:
        raise UserError(f"the run {found.id} trained nothing that could be published")
    shutil.copytree(whole[0], folder, dirs_exist_ok=True)
    if (made / "README.md").is_file():
        shutil.copy(made / "README.md", folder / "README.md")
    file = folder / "adapter_config.json"
    if file.is_file():
        config = json.loads(file.read_text())
        named = base or config["base_model_name_or_path"]
        if Path(named).is_absolute() or Path(named).exists():
            raise UserError(
                f"the adapter's base is a folder of this machine ({Path(named).name}): name it, --base HUB_ID"
            )
        file.write_text(json.dumps(config | {"base_model_name_or_path": named}, indent=1, sort_keys=True) + "\n")
