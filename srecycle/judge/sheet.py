"""A blinded sheet for people who compare two sides' answers: whose an answer is, only the key says.

In: pairs of answers. Out: one sheet an annotator, as CSV (for a spreadsheet) and as HTML (one page that needs no
network, and saves the labels as CSV), and `key.json`, which annotators must not see. Rows are a seeded sample in random
order; which side is shown first is drawn for each annotator and row, half of the rows each. The same pairs and seed
give the same bytes. Answers are untrusted: the page shows them as text and lets no script run but its own, and no cell
of the CSV is a formula. srecycle.judge.labels reads what comes back.
"""

import base64
import csv
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, ValidationError

from srecycle.errors import UserError
from srecycle.judge.pairs import Pair
from srecycle.rows import OK

COLUMNS: Final = ("sheet", "row", "question", "answer_1", "answer_2", "preference", "comment")
"""Of which annotators fill in the last two: `preference` with 1, 2 or tie."""

KEY: Final = "key.json"
_SHEETS = "sheets"
_TEMPLATES = Path(__file__).parent / "templates"

_FORMULA = re.compile(r"(^|[;\t\r\n])(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""What a spreadsheet may take for a formula: such a sign where a cell begins. Where the columns are taken to be
separated by semicolons or tabs, as in many countries, cells begin inside of texts too."""


class Key(BaseModel):
    """What was hidden: both sides' names, the prompt of each row, and for each sheet and row whether own came first."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    study: str
    own: str
    other: str
    rows: dict[str, str]
    own_first: dict[str, dict[str, bool]]


def read_key(path: Path) -> Key:
    """Return the key in a file. Raises UserError where the file can't be read, or holds something else."""
    try:
        return Key.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise UserError(
            f"{path} is no key of a sheet ({error.errors()[0]['msg']}): give the {KEY} of its folder"
        ) from error


def write_sheets(
    pairs: Sequence[Pair], names: tuple[str, str], folder: Path, *, rows: int | None, annotators: int, seed: int
) -> list[Path]:
    """Write the sheets of `rows` of these pairs (None: all that have both answers) and the key; return the files.

    `names` are own's and other's. Raises UserError where there are fewer pairs, or the folder holds a study already.
    """
    if (folder / KEY).exists() or (folder / _SHEETS).exists():
        raise UserError(f"{folder} holds a study already, perhaps with people's labels: name another folder")
    ready = [pair for pair in pairs if pair.status == OK]
    wanted = len(ready) if rows is None else rows
    if not 1 <= wanted <= len(ready):
        raise UserError(f"{wanted} rows are asked for, but {len(ready)} prompts have an answer of both sides")
    drawn = [ready[place] for place in np.random.default_rng(seed).permutation(len(ready))[:wanted]]
    key = _key(drawn, names, annotators, seed)
    files = {
        Path(_SHEETS, f"annotator_{number}.{kind}"): content
        for number, sheet in enumerate(key.own_first, start=1)
        for kind, content in _contents(key, sheet, drawn).items()
    }
    files[Path(KEY)] = key.model_dump_json(indent=1).encode() + b"\n"
    try:
        (folder / _SHEETS).mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error.strerror or error}") from error
    return [folder / name for name in files]


def _key(drawn: Sequence[Pair], names: tuple[str, str], annotators: int, seed: int) -> Key:
    texts = [str(seed), *(text for pair in drawn for text in (pair.id, *sorted((pair.own, pair.other))))]
    study = "s" + hashlib.sha256("\x1f".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    rows = {f"r{place:03}": pair.id for place, pair in enumerate(drawn, start=1)}
    return Key(
        study=study,
        own=names[0],
        other=names[1],
        rows=rows,
        own_first={
            f"{study}-{number}": dict(zip(rows, _halves(len(rows), number, seed), strict=True))
            for number in range(1, annotators + 1)
        },
    )


def _halves(rows: int, number: int, seed: int) -> list[bool]:
    """Return for each row whether own comes first: as often as not."""
    places = np.random.default_rng([seed, number]).permutation(rows)
    return [bool((place + number) % 2) for place in places]


def _contents(key: Key, sheet: str, drawn: Sequence[Pair]) -> dict[str, bytes]:
    """Return a sheet's files by their suffix."""
    shown = [
        (row, pair.question, *((pair.own, pair.other) if own_first else (pair.other, pair.own)))
        for (row, own_first), pair in zip(key.own_first[sheet].items(), drawn, strict=True)
    ]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    writer.writerows([defused(cell) for cell in (sheet, *texts, "", "")] for texts in shown)
    # Without a byte order mark spreadsheets take UTF-8 for the encoding of their country.
    return {"csv": stream.getvalue().encode("utf-8-sig", "backslashreplace"), "html": _page(sheet, shown)}


def defused(cell: str) -> str:
    """Return the text with an apostrophe before each sign that a spreadsheet could take for a formula's beginning."""
    return _FORMULA.sub(r"\1\2'", cell)


def _page(sheet: str, shown: Sequence[tuple[str, ...]]) -> bytes:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    script = (_TEMPLATES / "sheet.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("sheet.html.j2").render(
        sheet=sheet,
        number=sheet.rpartition("-")[2],
        rows=[dict(zip(("row", "question", "answer_1", "answer_2"), one, strict=True)) for one in shown],
        script=Markup(script),
        script_digest=digest,
    )
    return page.encode("utf-8", "backslashreplace")
