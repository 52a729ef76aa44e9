"""The surface says of every setting what the stages would do, and a loop over the rows does too."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from srecycle.study.__main__ import main
from srecycle.study.measured import measured
from srecycle.study.surface import NOT_KEPT, overlaps, surface
from srecycle.study.sweep import sweep

LIMITS = "keep.ifd_max.below=0.55,0.62,1.0"
REVERSED = "keep.rifd_max.below=choice(0.35,1.0)"
MARGINS = "selector.instruction.margin=range(0,0.3,0.1)"
RESPONSE = "selector@selector.response=reversed_ifd,perplexity"
KEEP = "keep=[ifd_max,rifd_max,response_reflected_only],[none]"


def made(study, *overrides):
    asked = sweep([*study.overrides, *overrides])
    return asked, surface(asked.axes, asked.settings, measured(asked.settings))


def recorded(study, setting):
    """Return what the stages record of a setting, under the surface's names."""
    stages = study.stages(replace(setting.experiment, until="assemble"))
    found = stages["assemble"].metrics
    return {
        **{name: value for name, value in found.items() if not name.startswith("mixed/")},
        "acceptance/instruction": stages["select_instruction"].metrics["acceptance"],
        "acceptance/response": stages["select_response"].metrics["acceptance"],
    }


@pytest.mark.parametrize(
    "overrides",
    [
        (LIMITS, REVERSED, MARGINS),
        (RESPONSE, "selector@selector.instruction=ifd,never,random", "selector.response.tie=incumbent,challenger"),
        (KEEP,),
    ],
)
def test_surface_every_setting_equals_what_the_stages_record(small, overrides):
    asked, found = made(small, *overrides)
    assert len(asked.settings) == len(found.lines) > 1
    for setting, line in zip(asked.settings, found.lines, strict=True):
        wanted = recorded(small, setting)
        assert {name: line.get(name) for name in wanted} == wanted
        refused = {name for name, value in line.items() if name.startswith("refused/") and value}
        assert refused == {name for name in wanted if name.startswith("refused/")}


def scores_of(study):
    """Return {row: {version: (IFD, r-IFD)}} from the scores that were written down."""
    found = {}
    for line in study.made(until="scores")["scores"].table("scores").to_pylist():
        if line["status"] == "ok":
            pair = line["loss_y_given_x"] - line["loss_y"], line["loss_x_given_y"] - line["loss_x"]
            found.setdefault(line["id"], {})[line["version"]] = tuple(map(math.exp, pair))
    return found


def by_hand(versions, margin, ifd_max, rifd_max):
    """Return the version that is taken of a row, and whether it is kept."""
    taken = "original"
    if "instruction" in versions and versions["instruction"][0] - versions["original"][0] > margin:
        taken = "instruction"
    other = {"original": "response", "instruction": "both"}[taken]
    if other in versions and versions[other][1] < versions[taken][1]:
        taken = other
    ifd, r_ifd = versions[taken]
    return taken, ifd < ifd_max and r_ifd < rifd_max and taken in ("response", "both")


def test_surface_counts_means_and_overlap_equal_a_loop_over_the_rows(small):
    _, found = made(small, LIMITS, REVERSED, MARGINS)
    scored, kept = scores_of(small), []
    for line in found.lines:
        limits = line["selector.instruction.margin"], line["keep.ifd_max.below"], line["keep.rifd_max.below"]
        told = {row: by_hand(versions, *limits) for row, versions in scored.items()}
        kept.append({(row, taken) for row, (taken, stays) in told.items() if stays})
        for kind in ("original", "instruction", "response", "both"):
            assert line[f"taken/{kind}"] == sum(taken == kind for taken, _ in told.values())
        assert line["kept"] == len(kept[-1])
        for number, name in enumerate(("ifd", "r_ifd")):
            values = [scored[row][taken][number] for row, taken in kept[-1]]
            assert line[f"kept/{name}/mean"] == pytest.approx(sum(values) / len(values))
            assert line[f"kept/{name}/median"] == pytest.approx(np.median(values))
    assert len({len(one) for one in kept}) > 3
    for one, first in enumerate(kept):
        for other, second in enumerate(kept):
            assert found.overlap[one, other] == pytest.approx(len(first & second) / len(first | second))
            rows, others = {row for row, _ in first}, {row for row, _ in second}
            assert found.overlap_rows[one, other] == pytest.approx(len(rows & others) / len(rows | others))


def test_surface_settings_in_any_order_give_the_same_lines(small):
    _, found = made(small, LIMITS, MARGINS)
    _, turned = made(small, "keep.ifd_max.below=1.0,0.62,0.55", "selector.instruction.margin=0.2,0.1,0.0")
    assert len(found.lines) == len(turned.lines) == 9
    assert [dict(line) for line in found.lines] == [dict(line) for line in reversed(turned.lines)]


def test_overlaps_count_versions_and_leave_two_empty_settings_undefined():
    kept = np.array([[0, 1, 3, NOT_KEPT], [0, 2, 3, 3], [NOT_KEPT] * 4, [NOT_KEPT] * 4], dtype=np.int16)
    found = overlaps(kept, 4)
    assert found[0, 0] == 1 and found[0, 1] == found[1, 0] == pytest.approx(2 / 5)
    assert found[0, 2] == 0 and np.isnan(found[2, 3]) and np.isnan(found[2, 2])


def test_surface_with_chosen_scope_varies_the_response_phase(chosen):
    asked, found = made(chosen, RESPONSE, LIMITS)
    for setting, line in zip(asked.settings, found.lines, strict=True):
        wanted = recorded(chosen, setting)
        assert {name: line.get(name) for name in wanted} == wanted


def test_surface_with_chosen_scope_refuses_another_instruction_phase(chosen, told):
    said = told("surface", *chosen.overrides, "selector.instruction.margin=0,0.1")
    assert "reflection.scope=chosen" in said and "set reflection.scope=all" in said


def test_surface_without_stored_likelihoods_names_the_command_that_makes_them(tmp_path, told):
    store = tmp_path / "none"
    said = told("surface", f"store={store}", "data.count=7", LIMITS, "until=train")
    assert f"{store} has no source" in said and "likelihoods" in said
    assert f"`srecycle store={store} data.count=7 keep.ifd_max.below=0.55 until=scores`" in said
    assert not store.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher=scripted,replay", "teacher can't be varied here"),
        ("scorer.score_eos=true,false", "scorer.score_eos can't be varied here"),
        ("keep.ifd_max.blow=1,2", "keep.ifd_max.blow is no configuration key"),
        ("keep.ifd_max.below=1,-1", "keep.ifd_max.below=-1: Input should be greater than 0"),
        ("keep.ifd_max.below=interval(0,1)", "has no values to be listed"),
        ("keep.ifd_max.below=glob(*)", "names no value"),
        ("selector@selector.response=ifd,nope", "there is no selector/nope"),
        ("keep.ifd_max.below=1,1", "has the value 1 twice"),
        ("keep.ifd_max._target_=os.getcwd,os.abort", "is refused: it names no component"),
        ("keep.ifd_max.below", "can't be read as an override"),
    ],
)
def test_surface_mistaken_override_is_one_line(small, told, override, message):
    assert message in told("surface", *small.overrides, override)


def test_surface_key_given_twice_is_refused(small, told):
    assert "keep.ifd_max.below is given twice" in told("surface", *small.overrides, LIMITS, "keep.ifd_max.below=1")


def test_surface_command_writes_tables_and_figure(small, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["surface", *small.overrides, LIMITS, "--out", str(out), REVERSED]) == 0
    said = capsys.readouterr().out
    assert "40 rows" in said and "keep.rifd_max.below" in said and "ifd_too_high" in said
    table = pq.read_table(out / "surface.parquet")
    assert table["setting"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert table["keep.ifd_max.below"].to_pylist() == [0.55, 0.55, 0.62, 0.62, 1.0, 1.0]
    assert pyarrow.csv.read_csv(out / "surface.csv")["kept"].to_pylist() == table["kept"].to_pylist()
    pairs = pyarrow.csv.read_csv(out / "overlap.csv").to_pylist()
    assert len(pairs) == 15 and all(0 <= pair["jaccard"] <= pair["jaccard_rows"] <= 1 for pair in pairs)
    root = ElementTree.parse(out / "surface.svg").getroot()
    assert len([one for one in root.iter() if one.get("class") == "cell"]) == 6


def test_surface_of_one_setting_has_no_figure(small, tmp_path, capsys):
    assert main(["surface", *small.overrides, "--out", str(tmp_path / "out")]) == 0
    assert "nothing varies" in capsys.readouterr().err
    assert not (tmp_path / "out" / "surface.svg").exists()


def test_surface_out_that_cannot_be_written_is_one_line(small, told):
    assert "--out /dev/null/x: Not a directory" in told("surface", *small.overrides, "--out", "/dev/null/x")


_LOADED = """
import json, sys
from srecycle.study.__main__ import main
assert main(["surface", *sys.argv[1:]]) == 0
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def test_surface_loads_no_model_library(small):
    command = [sys.executable, "-c", _LOADED, *small.overrides, LIMITS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "pyarrow" in loaded and not {"torch", "transformers", "openai", "datasets"} & loaded
