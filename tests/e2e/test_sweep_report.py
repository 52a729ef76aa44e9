"""A sweep of twelve runs: what W&B has of it, and its report as a reader finds it in a browser."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from srecycle.report.__main__ import main
from srecycle.report.runs import Run, read_runs
from tests.chromium import Opened, chromium, opened
from tests.e2e.conftest import SMALL, command
from tests.offline_runs import OfflineRun, offline_run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LIMITS = (0.8, 0.9, 1.0)
SWEPT = (
    *(one for one in SMALL if not one.startswith("tracker")),
    *("teacher=scripted,scripted_sloppy", "student=testbed_weak,testbed_strong"),
    f"keep.ifd_max.below={','.join(map(str, LIMITS))}",
    *("scorer.token_losses=true", "group=trial", "tracker=wandb", "tracker.mode=offline", "tracker.table_rows=8"),
)
MEAN = "evaluate/testbed/accuracy/mean"

OWNED = "window.owned=1"
SCRIPT = f"</script><script>{OWNED}</script></title></textarea>"
IMAGE = f'<img src=x onerror="{OWNED}"><svg onload="{OWNED}"><a href="javascript:{OWNED}">x</a>'
QUOTES = f'"\'`&quot;&#39; " onmouseover="{OWNED}" \' onfocus=\'{OWNED} {{{{ 7*7 }}}} ${{7*7}}'
TURNED = "\u202eback to front\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627"
LONG = "x" * 20_000
HOSTILE = (SCRIPT, IMAGE, QUOTES, TURNED, LONG)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The sweep's runs, and the report of its group, to which a run over hostile rows was added."""

    runs: list[Run]
    hostile: Run
    report: Path


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Run the sweep, then the hostile rows in the same group, and write the group's report."""
    root = tmp_path_factory.mktemp("trial")
    store = root / "store"
    finished(store, "-m", *SWEPT)
    swept = read_runs(store, "trial")
    finished(store, *hostile_settings(root))
    (hostile,) = [run for run in read_runs(store, "trial") if run.id not in {one.id for one in swept}]
    path = root / "report.html"
    assert main(["--store", str(store), "--group", "trial", "--out", str(path)]) == 0
    return Trial(runs=swept, hostile=hostile, report=path)


def finished(store: Path, *overrides: str) -> None:
    process = command(*overrides, store=store)
    said = process.communicate(timeout=600)
    assert process.returncode == 0, said


def hostile_settings(root: Path) -> tuple[str, ...]:
    """Write rows and recorded replies that try to break out of wherever they are shown."""
    rows = [{"instruction": one, "input": one, "output": f"{one} {number}"} for number, one in enumerate(HOSTILE)]
    (root / "rows.json").write_text(json.dumps(rows))
    kinds = ("instruction", "response_original", "response_reflected")
    replies = [
        {"index": place, "kind": kind, "reply": reply(kind, one), "finish_reason": "stop"}
        for place, one in enumerate(HOSTILE)
        for kind in kinds
    ]
    (root / "replies.jsonl").write_text("\n".join(map(json.dumps, replies)))
    return (
        *("data=alpaca", f"data.path={root / 'rows.json'}", "teacher=replay", f"teacher.path={root / 'replies.jsonl'}"),
        *("student=testbed_weak", "trainer=none", "evaluator=[none]", "keep=[ifd_max]", "tracker=jsonl"),
        *("selector@selector.instruction=always", "selector@selector.response=always", "group=trial"),
        f"name='{SCRIPT}'",
    )


def reply(kind: str, text: str) -> str:
    if kind == "instruction":
        return f"{text} is weak.\n[New Instruction] {text} anew [End]\n[New Answer] {text} better [End]"
    return f"{text} is weak.\n[Better Answer] {text} best [End]"


# What W&B has.


@pytest.fixture(scope="module")
def tracked(trial: Trial) -> list[tuple[Run, OfflineRun]]:
    """Read every run of the sweep back."""
    return [(run, offline_run(next(run.folder.glob("wandb/offline-run-*")))) for run in trial.runs]


def test_sweep_is_tracked_whole(tracked: list[tuple[Run, OfflineRun]]) -> None:
    assert len(tracked) == 12
    for run, told in tracked:
        missing = {name for name, value in run.metrics.items() if value is not None and told.summary.get(name) != value}
        assert not missing, run.id
        assert told.summary["status"] == "finished" and told.about["exit_code"] == 0
        assert len([line for line in told.history if "train/loss" in line]) == run.metrics["train/steps"] == 4
        assert len(told.table("decisions")["data"]) == 8
        kinds = {one["type"] for one in told.artifacts}
        assert {"dataset", "rewrites", "scores", "selection", "model", "evaluation"} <= kinds


def test_sweep_can_be_grouped_and_filtered_by_what_was_swept(tracked: list[tuple[Run, OfflineRun]]) -> None:
    names = ("choice/teacher", "choice/student", "threshold/keep/ifd_max/below")
    points = {tuple(told.config[name] for name in names) for _, told in tracked}
    teachers, students = ("scripted", "scripted_sloppy"), ("testbed_weak", "testbed_strong")
    assert points == {(one, other, limit) for one in teachers for other in students for limit in LIMITS}
    assert len({told.about["run_id"] for _, told in tracked}) == 12


# What the report shows.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Chromium once."""
    with chromium() as started:
        yield started


@pytest.fixture
def shown(browser: Any, trial: Trial) -> Iterator[Opened]:
    """Open the report; whatever is done to it, it must not complain, fetch anything, or run what it shows."""
    with opened(browser, trial.report, accept_downloads=True) as found:
        yield found
        assert found.said == []
        assert found.fetched == []
        assert found.page.evaluate("window.owned") is None


def lines(shown: Opened, table: str = "table.compared") -> list[str]:
    """Return the ids of the runs whose lines are visible, in their order."""
    hrefs = shown.page.eval_on_selector_all(
        f"{table} tbody tr", "rows => rows.filter((row) => row.offsetHeight > 0).map((row) => row.dataset.run)"
    )
    labels = shown.page.eval_on_selector_all(
        "details.run", "runs => runs.map((run) => [run.dataset.run, run.id.slice(4)])"
    )
    return [dict(labels)[label] for label in hrefs]


def head(shown: Opened, title: str, table: str = "table.compared") -> Any:
    return shown.page.locator(f"{table} thead button", has_text=title).first


def test_report_shows_every_run_with_its_figures(shown: Opened, trial: Trial) -> None:
    assert set(lines(shown)) == {run.id for run in (*trial.runs, trial.hostile)}
    first = trial.runs[0]
    cells = shown.page.locator("table.compared tbody tr").first.locator("td").all_inner_texts()
    assert cells[0].split()[0] == f"{first.metrics[MEAN]:.3f}"
    assert shown.page.locator("figure").count() >= 8
    assert shown.page.locator("figure svg").first.bounding_box()["height"] > 100


def test_report_sorts_by_click_and_by_keyboard(shown: Opened, trial: Trial) -> None:
    seconds = sorted((*trial.runs, trial.hostile), key=lambda run: run.seconds)
    head(shown, "seconds").click()
    assert lines(shown) == [run.id for run in seconds]
    head(shown, "seconds").click()
    assert lines(shown) == [run.id for run in reversed(seconds)]

    shown.page.keyboard.press("/")  # goes to the filter
    for _ in range(6):
        shown.page.keyboard.press("Tab")
        if shown.page.evaluate("document.activeElement.textContent") == "mean":
            break
    shown.page.keyboard.press("Enter")
    means = {run.id: run.metrics[MEAN] for run in trial.runs}
    found = lines(shown)
    assert found[-1] == trial.hostile.id  # it has no such figure
    values = [means[one] for one in found[:-1]]
    assert values == sorted(values, reverse=True)
    shown.page.keyboard.press("Space")
    assert [means[one] for one in lines(shown)[:-1]] == sorted(values)


def test_report_filter_narrows_every_table_and_the_sections(shown: Opened, trial: Trial) -> None:
    wanted = {run.id for run in trial.runs if "teacher=scripted_sloppy" in run.overrides}
    shown.page.locator("#filter").fill("sloppy")
    assert set(lines(shown)) == set(lines(shown, "table.compared-settings")) == wanted and len(wanted) == 6
    assert shown.page.locator("details.run:visible").count() == 6
    assert shown.page.locator("#filtered").inner_text() == "6 of 13"


def test_report_differences_leave_out_what_all_runs_share(browser: Any, trial: Trial, tmp_path: Path) -> None:
    path = tmp_path / "sweep.html"
    assert main(["--store", str(trial.runs[0].store), "--out", str(path), *(run.id for run in trial.runs)]) == 0
    with opened(browser, path) as shown:
        names = shown.page.eval_on_selector_all(
            "table.compared-settings th[data-name]", "heads => heads.map((head) => head.dataset.name)"
        )
        assert {"keep.ifd_max.below", "student.path"} < set(names)
        assert all(name.startswith(("keep.ifd_max", "student", "teacher")) for name in names)
        assert not shown.page.get_by_text("trainer.batch_size", exact=True).is_visible()
        shown.page.get_by_text("Settings that all runs share").click()
        assert shown.page.get_by_text("trainer.batch_size", exact=True).is_visible()
        assert {"surface", "pairings", "sweep-keep.ifd_max.below"} & set(figures(shown)) >= {"pairings"}


def figures(shown: Opened) -> list[str]:
    found: list[str] = shown.page.eval_on_selector_all("figure", "all => all.map((one) => one.id)")
    return found


def test_report_table_is_saved_as_shown(shown: Opened, trial: Trial) -> None:
    shown.page.locator("#filter").fill("sloppy")
    head(shown, "seconds").click()
    with shown.page.expect_download() as saved:
        shown.page.locator("[aria-labelledby=comparison] .saves button", has_text="CSV").first.click()
    text = saved.value.path().read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    known = {run.id: run for run in trial.runs}
    ordered = [known[one] for one in lines(shown)]
    assert [float(row["seconds"]) for row in rows] == [run.seconds for run in ordered]
    assert [float(row["testbed accuracy mean"]) for row in rows] == [run.metrics[MEAN] for run in ordered]


def test_report_decisions_are_searched_and_filtered(shown: Opened, trial: Trial) -> None:
    run = trial.runs[0]
    shown.page.locator(f'table.compared a[href="#run-{run.id}"]').click()
    section = shown.page.locator(f"[id='run-{run.id}']")
    cases = section.locator("article.case:visible")
    every = cases.count()
    outcomes = section.locator("select.outcomes option").all_inner_texts()[1:]
    assert every > len(outcomes) > 1
    counts = []
    for outcome in outcomes:
        section.locator("select.outcomes").select_option(outcome)
        counts.append(cases.count())
    assert sum(counts) == every and all(counts)
    section.locator("select.outcomes").select_option("")

    reason = section.locator("select.reasons option").all_inner_texts()[1]
    section.locator("select.reasons").select_option(reason)
    assert 0 < cases.count() < every
    phase, _, words = reason.partition(": ")
    for text in cases.locator(".choices").all_inner_texts():
        assert any(line.startswith(f"{phase} phase") and words in line for line in text.splitlines())
    section.locator("select.reasons").select_option("")

    row = cases.last.locator("code").first.inner_text()
    section.locator(".find").fill(row)
    assert cases.count() == 1 and section.locator(".found").inner_text() == f"1 of {every}"
    cases.first.get_by_text("the response by token").first.click()
    assert cases.first.locator(".heat i:visible").count() > 1


def test_report_is_used_without_a_mouse(shown: Opened, trial: Trial) -> None:
    shown.page.locator("#open-all").focus()
    shown.page.keyboard.press("Tab")
    shown.page.keyboard.press("Tab")
    shown.page.keyboard.press("Enter")
    assert shown.page.locator("details.run").first.get_attribute("open") is not None
    outline = shown.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_report_hostile_texts_are_shown_and_do_nothing(shown: Opened, trial: Trial) -> None:
    shown.page.locator("#open-all").click()
    assert shown.page.locator("script").count() == 1
    assert shown.page.locator("img, iframe, object, a[href^='javascript:']").count() == 0
    attributes = shown.page.eval_on_selector_all(
        "*", "all => all.flatMap((one) => one.getAttributeNames()).filter((name) => name.startsWith('on'))"
    )
    assert attributes == []
    section = shown.page.locator(f"[id='run-{trial.hostile.id}']")
    assert section.locator("article.case").count() == len(HOSTILE)
    text = section.text_content()
    for one in (SCRIPT, IMAGE, QUOTES):
        assert one in text
    assert "[U+202E]back to front" in text and "more characters)" in text
    assert shown.page.title().endswith("srecycle report")
    wide = shown.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_follows_the_system_s_theme_and_the_reader_s(browser: Any, trial: Trial, scheme: str) -> None:
    with opened(browser, trial.report, color_scheme=scheme) as shown:
        other = {"light": "dark", "dark": "light"}[scheme]
        assert (brightness(shown, "body", "backgroundColor") > 0.5) == (scheme == "light")
        button = shown.page.locator("#theme")
        while button.inner_text() != f"theme: {other}":
            button.click()
        for place, style in (("body", "backgroundColor"), ("table.compared tbody th", "backgroundColor")):
            assert (brightness(shown, place, style) > 0.5) == (other == "light")
        ink = brightness(shown, "figure .label", "fill")
        assert abs(ink - brightness(shown, "body", "backgroundColor")) > 0.5
        shown.page.reload()
        assert button.inner_text() == f"theme: {other}"


def brightness(shown: Opened, selector: str, style: str) -> float:
    """Return a colour's mean channel, from 0 to 1, as the browser draws it."""
    drawn = """([selector, style]) => {
      const pen = document.createElement("canvas").getContext("2d");
      pen.fillStyle = getComputedStyle(document.querySelector(selector))[style];
      pen.fillRect(0, 0, 1, 1);
      return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
    }"""
    return sum(shown.page.evaluate(drawn, [selector, style])) / 3 / 255
