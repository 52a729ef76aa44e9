"""A run's training set as a file that other tools read: Alpaca, ShareGPT, or prompt and completion as TRL takes them.

    srecycle-study export RUN --format alpaca --out FOLDER [--push OWNER/NAME]

RUN is a run's folder, or its id or name in the store (`--store`; of several of a name, the newest). FOLDER gets the
kept rows (and those mixed in) as data.json or data.jsonl, and README.md, a data card that says where they are from:
its stages' keys name them for good. --push uploads both to the Hugging Face hub, as a private data set unless --public
is given; the token is the hub's own (`hf auth login`, or HF_TOKEN).
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from srecycle.config import flattened
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.report.runs import Run, brief, read_run, read_runs
from srecycle.rows import is_mixed, kind_of

Line = Mapping[str, Any]
FORMATS = ("alpaca", "sharegpt", "prompt_completion")
_SPEAKER = {"system": "system", "user": "human", "assistant": "gpt"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, id or name")
    parser.add_argument("--format", choices=FORMATS, default="alpaca")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where to write; must be new or empty"
    )
    parser.add_argument("--store", type=Path, default=Path(os.environ.get("SRECYCLE_STORE", "srecycle_store")))
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload to this data set on the hub")
    parser.add_argument("--public", action="store_true", help="make the data set public")


def run(options: argparse.Namespace) -> None:
    """Write the files, and upload them where asked."""
    found = found_run(options.run, options.store, "assemble")
    kept = kept_rows(found)
    folder = empty_folder(options.out)
    file = write(kept, options.format, folder)
    (folder / "README.md").write_text(card(found, kept, options.format, file.name), encoding="utf-8")
    say(f"{len(kept)} rows of {found.name} ({found.id}): {file}")
    if options.push:
        say(f"pushed: {push(folder, options.push, kind='dataset', public=options.public)}")


def empty_folder(path: Path) -> Path:
    """Return a folder to write into, made where it isn't there. Raises UserError where something is in it."""
    folder = path.expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder} is not an empty folder: name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def found_run(name: str, store: Path, stage: str) -> Run:
    """Return a run by its folder, id or name (the newest that has this stage). Raises UserError where there is none."""
    if (Path(name) / "run.json").is_file():
        return read_run(Path(name))
    runs = [one for one in read_runs(store) if name in (one.id, one.name)]
    if not runs:
        raise UserError(f"{store} has no run {name}: give its folder, or an id or name from srecycle-report's table")
    return ([one for one in runs if one.artifact(stage) is not None] or runs)[-1]


def kept_rows(found: Run) -> list[Line]:
    """Return the lines of a run's training set that are trained on. Raises UserError where it has none."""
    folder = found.artifact("assemble")
    if folder is None or not (folder / "training.parquet").is_file():
        raise UserError(f"the run {found.id} has no training set: it ended before that, or its artifact was removed")
    lines = [line for line in pq.read_table(folder / "training.parquet").to_pylist() if line["kept"]]
    if not lines:
        raise UserError(f"the run {found.id} kept no row: there is nothing to export")
    return lines


def write(kept: Sequence[Line], form: str, folder: Path) -> Path:
    """Write rows in a format, and return the file. Texts stand as they were trained on."""
    if form == "alpaca":
        file, content = folder / "data.json", json.dumps([alpaca(line) for line in kept], ensure_ascii=False, indent=1)
    elif form == "sharegpt":
        file = folder / "data.json"
        content = json.dumps([sharegpt(line) for line in kept], ensure_ascii=False, indent=1)
    else:
        file = folder / "data.jsonl"
        content = "\n".join(json.dumps(prompt_completion(line), ensure_ascii=False) for line in kept)
    file.write_text(content + "\n", encoding="utf-8", errors="surrogatepass")
    return file


def alpaca(line: Line) -> dict[str, Any]:
    """Return a row in the Alpaca format. One inside a conversation keeps its earlier turns under `history`."""
    texts = {"instruction": line["instruction"], "input": line["input"], "output": line["response"]}
    history = {"history": list(map(dict, line["history"]))} if line["history"] else {}
    return {**texts, **history, "id": line["id"], "version": line["version"]}


def sharegpt(line: Line) -> dict[str, Any]:
    """Return a row as a ShareGPT conversation."""
    turns = [{"from": _SPEAKER.get(turn["role"], turn["role"]), "value": turn["content"]} for turn in line["history"]]
    last = [{"from": "human", "value": _question(line)}, {"from": "gpt", "value": line["response"]}]
    return {"id": line["id"], "version": line["version"], "conversations": [*turns, *last]}


def prompt_completion(line: Line) -> dict[str, Any]:
    """Return a row as TRL's conversational prompt and completion: the trainer's own template is put around it."""
    prompt = [*map(dict, line["history"]), {"role": "user", "content": _question(line)}]
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": line["response"]}], "id": line["id"]}


def _question(line: Line) -> str:
    return f"{line['instruction']}\n\n{line['input']}" if line["input"] else str(line["instruction"])


def card(found: Run, kept: Sequence[Line], form: str, file: str) -> str:
    """Return the data card, in Markdown with the hub's front matter."""
    kinds = Counter("mixed in" if is_mixed(line["id"]) else kind_of(line["version"]) for line in kept)
    stages = "\n".join(f"| {one['label']} | `{one['key']}` |" for one in found.stages)
    parts = {**found.choices, **_settings(found.config, "keep"), **_settings(found.config, "assemble")}
    choices = "\n".join(f"| {_cell(name)} | {_cell(choice)} |" for name, choice in sorted(parts.items()))
    counts = "\n".join(f"| {kind} | {count} |" for kind, count in sorted(kinds.items()))
    overrides = " ".join(map(brief, found.overrides)).replace("`", "'")  # folders are nobody else's business
    return f"""---
configs:
- config_name: default
  data_files: {file}
tags:
- srecycle
- selective-reflection-tuning
---
# {_cell(found.name)}

{len(kept)} instruction-response pairs ({form}), made by srecycle: a teacher reflected on the samples of an instruction
set and rewrote them, and the student decided by its own likelihoods which rewrites to take (Selective
Reflection-Tuning, arXiv:2402.10110). Check the licences of the source data and the terms of the teacher before you
share or train on it.

Run `{found.id}`, by `srecycle {overrides}`.

| version | rows |
|---|---|
{counts}

| part | choice |
|---|---|
{choices}

| stage | key |
|---|---|
{stages}
"""


def _settings(config: Any, part: str) -> dict[str, Any]:
    """Return what a part of the experiment is set to, less what says how it is computed."""
    told = flattened(config.get(part) or {}) if isinstance(config, dict) else {}
    return {f"{part}.{name}": value for name, value in told.items() if name.rpartition(".")[2] != "revision"}


def _cell(text: object) -> str:
    """Return a text that stays inside a cell of a Markdown table, and is no markup."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in plain)


def push(folder: Path, name: str, *, kind: Literal["dataset", "model"], public: bool) -> str:
    """Upload the folder as such a repository, and return its address. Raises UserError where the hub refuses."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        url = api.create_repo(name, repo_type=kind, private=not public, exist_ok=True)
        api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder, commit_message="From srecycle")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"--push {name}: {told}; nothing is lost, push again when it's mended") from error
    return str(url)
