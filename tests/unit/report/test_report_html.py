"""The report as a reader, and as an attacker, would see it."""

import base64
import hashlib
import shutil
from pathlib import Path

import pytest

from srecycle.errors import UserError
from srecycle.report.html import write_report

ACCURACY = {"unseen_2": (0.25, 0.04), "mean": (0.5, 0.02), "known": (0.75, 0.03)}
HIGHER = {"unseen_2": (0.2, 0.04), "mean": (0.6, 0.02), "known": (0.9, 0.03)}
DASH = "\N{EN DASH}"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;</title>{{ 7*7 }}"


def test_comparison_finished_runs_show_figures_with_errors_in_reading_order(built, page):
    rows = page([built.run("first", accuracy=ACCURACY), built.run("second", accuracy=HIGHER)]).rows
    heads = [cell for cell in rows[1] if cell]
    assert heads == ["run", "mean", "known", "unseen 2", "kept", "kept share", "teacher requests", "seconds"]
    first = ["first", "0.500±0.020", "0.750±0.030", "0.250(best)±0.040", "2", "66.7%", "3", "12.5"]
    second = ["second", "0.600(best)±0.020", "0.900(best)±0.030", "0.200±0.040", "2", "66.7%", "3", "12.5"]
    assert rows[2:] == [first, second]


def test_comparison_group_titles_cover_their_columns(built, page):
    shown = page([built.run("one", accuracy=ACCURACY, metrics={"evaluate/testbed/clean_share": 0.5})])
    spans = [(one["colspan"]) for one in shown.all("th", scope="colgroup")]
    assert spans == ["3", "1"]
    assert shown.rows[0][1:3] == ["testbed accuracy", "testbed"]


def test_comparison_replies_that_cost_something_have_a_column(built, page):
    paid = built.run("paid", accuracy=ACCURACY, metrics={"cost/usd": 12.345})
    free = built.run("free", accuracy=ACCURACY, metrics={"cost/usd": 0.0})
    rows = page([paid, free, built.run("old", accuracy=ACCURACY)]).rows
    assert [cell for cell in rows[1] if cell][-2:] == ["replies, $", "seconds"]
    assert [row[-2] for row in rows[2:]] == ["12.35", "0.00", DASH]


def test_comparison_failed_run_shows_dashes_and_never_zeros(built, page):
    fine = built.run("fine", accuracy=ACCURACY)
    shown = page([fine, built.run("broken", upto=0, status="failed")])
    assert shown.rows[3][0] == "brokenfailed"
    assert shown.rows[3][1:-1] == [DASH] * 6


def test_comparison_failed_run_with_better_figures_is_not_best(built, page):
    fine = [built.run("low", accuracy=ACCURACY), built.run("high", accuracy={**ACCURACY, "mean": (0.51, 0.02)})]
    shown = page([*fine, built.run("broken", accuracy=HIGHER, status="failed")])
    assert [row[1] for row in shown.rows[2:]] == ["0.500±0.020", "0.510(best)±0.020", "0.600±0.020"]


def test_comparison_figure_that_is_the_same_everywhere_has_no_best(built, page):
    shown = page([built.run(name, accuracy=ACCURACY) for name in "ab"])
    assert [row[1] for row in shown.rows[2:]] == ["0.500±0.020"] * 2


def test_comparison_perplexity_column_marks_the_lowest(built, page):
    name = "evaluate/lm_eval/wikitext/word_perplexity"
    shown = page([built.run("low", metrics={name: 9.0}), built.run("high", metrics={name: 11.0})])
    assert [row[1] for row in shown.rows[2:]] == ["9.000(best)", "11.000"]


def test_comparison_untuned_baseline_trains_on_nothing(built, page):
    shown = page([built.run("base", accuracy=ACCURACY, metrics={"train/rows": 0})])
    assert shown.rows[2][0] == "basenot tuned"
    assert shown.rows[2][4:6] == [DASH, DASH]


def test_comparison_cells_carry_exact_values_to_sort_by(built, page):
    shown = page([built.run("one", accuracy={"mean": (1 / 3, 0.01)}), built.run("two", upto=0, status="failed")])
    values = [one["data-value"] for one in shown.all("td") if "data-value" in one]
    assert values[0] == repr(1 / 3)
    assert values[5:9] == ["", "", "", ""]


def test_finding_clear_gap_is_called_more_than_noise(built, page):
    text = page([built.run("low", accuracy=ACCURACY), built.run("high", accuracy=HIGHER, key="k1")]).text
    said = "Best testbed accuracy mean: high, 0.600 ± 0.020; next is low, 0.500 ± 0.020."
    assert f"{said} The gap is 3.5 standard errors: more than noise." in text


def test_finding_small_gap_is_called_noise(built, page):
    near = {"mean": (0.51, 0.02)}
    text = page([built.run("low", accuracy=ACCURACY), built.run("high", accuracy=near, key="k1")]).text
    assert "The gap is 0.4 standard errors: within noise." in text


def test_finding_repeated_run_is_not_its_own_rival(built, page):
    assert "Best testbed" not in page([built.run("one", accuracy=ACCURACY), built.run("one", accuracy=ACCURACY)]).text


def test_header_dates_are_those_of_the_runs(built, page):
    text = page([built.run("late", at="235900"), built.run("early", at="000100")]).text
    assert "started 2026-02-14 00:01 to 2026-02-14 23:59 UTC" in text
    assert str(built.store.root) in text


def test_header_run_without_a_date_in_its_id_leaves_it_out(built, page):
    assert "UTC" not in page([built.run("one", id="handmade")]).text


def test_browser_shows_all_versions_with_scores_from_their_likelihoods(built, page):
    text = page([built.run("one")]).text
    assert "original IFD 0.500 · r-IFD 0.368 instruction say it a0 response say it y0" in text
    assert "both taken IFD 0.800 · r-IFD 0.368" in text
    assert "the teacher's critique say it critique" in text
    assert "original 0.111 , challenged by instruction 0.411 : original taken, incumbent won" in text


def test_browser_names_what_became_of_rows(built, page):
    shown = page([built.run("one")])
    outcomes = [one["data-outcome"] for one in shown.all("article")]
    assert outcomes == ["original: response not reflected", "response: kept", "both: kept"]
    assert "instruction unparsed" in shown.text
    assert "not made" in shown.text


def test_details_count_reasons_most_frequent_first(built, page):
    text = page([built.run("one")]).text
    assert "Decisions on the instruction what rows share incumbent won 2 66.7% challenger won 1 33.3%" in text
    assert "Refused by the keep filters what rows share response not reflected 1 33.3%" in text
    assert "Replies on the instruction what rows share ok 2 66.7% unparsed 1 33.3%" in text


def test_details_list_stages_with_keys_and_how_they_were_made(built, page):
    assert "likelihoods k0 run 1.0 select_instruction k0 run 1.0" in page([built.run("one")]).text


@pytest.mark.parametrize("field", ["text", "name", "overrides", "config", "metric", "status", "reason", "group", "id"])
def test_hostile_text_is_inert_wherever_it_stands(built, page, field):
    if field == "text":
        built.text = HOSTILE
    changes = {
        "name": {"name": HOSTILE},
        "overrides": {"overrides": [HOSTILE]},
        "config": {"config": {HOSTILE: HOSTILE}},
        "metric": {"metrics": {f"assemble/refused/{HOSTILE}": 2, f"evaluate/{HOSTILE}/x": 0.5}},
        "status": {"status": HOSTILE},
        "reason": {"reason": HOSTILE, "status": "failed"},
        "group": {"group": HOSTILE},
        "id": {"id": HOSTILE},
    }.get(field, {})
    shown = page([built.run(**{"name": "one", **changes}), built.run("two", group=changes.get("group", "sweep"))])
    assert len(shown.all("script")) == 1
    assert not shown.all("img")
    assert not [name for _, attributes in shown.elements for name in attributes if name.startswith("on")]
    assert HOSTILE.replace("_", " ") in " ".join(shown.texts) or HOSTILE in str(shown.elements)
    assert "alert(1)" not in "".join(shown.scripts)


def test_direction_overrides_and_control_characters_are_made_visible(built, page):
    text = page([built.run("a\u202eb\x00c\x1b[31m")]).text
    assert "a[U+202E]b\u2400c\u241b[31m" in text


def test_half_a_surrogate_pair_in_a_name_is_written_as_its_code(built, page):
    assert r"odd \ud800 name" in page([built.run("odd \ud800 name")]).text


def test_long_line_is_cut_and_says_so(built, page):
    built.text = "x" * 10_000
    shown = page([built.run("one")])
    assert "… (6,003 more characters)" in shown.text
    assert max(map(len, shown.texts)) < 4_100


def test_policy_lets_only_the_page_s_own_script_run(built, page):
    shown = page([built.run("one")])
    (policy,) = (one["content"] for one in shown.all("meta") if "http-equiv" in one)
    digest = base64.b64encode(hashlib.sha256("".join(shown.scripts).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_report_refers_to_nothing_outside_itself(built, page):
    shown = page([built.run("one", accuracy=ACCURACY)])
    references = [one[name] for _, one in shown.elements for name in ("src", "href", "data") if name in one]
    assert references
    anchors = {one["id"] for _, one in shown.elements if "id" in one}
    assert all(reference.startswith("#") and reference[1:] in anchors for reference in references)


def test_report_same_runs_give_the_same_bytes(built, tmp_path):
    runs = [built.run("one", accuracy=ACCURACY), built.run("two", accuracy=HIGHER)]
    first, second = (write_report(runs, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
    assert not list(tmp_path.glob(".*"))


def test_report_run_without_likelihoods_says_so_and_keeps_the_rest(built, page):
    shown = page([built.run("one", without=("likelihoods",))])
    assert "No run has likelihoods" in shown.text
    assert f"IFD {DASH} · r-IFD {DASH}" in shown.text


def test_report_run_without_evaluation_says_so(built, page):
    assert "No run has an evaluation figure" in page([built.run("one", upto=7)]).text


def test_report_run_that_failed_before_its_first_stage_says_so(built, page):
    text = page([built.run("one", upto=0, status="failed")]).text
    for sentence in (
        "stopped before its first stage",
        "No run came so far",
        "No run has a training curve",
        "no rows to show",
    ):
        assert sentence in text


def test_report_run_that_failed_says_why(built, page):
    reason = f"UserError: {HOSTILE} {'x' * 2000}"
    shown = page([built.run("bad", upto=0, status="failed", reason=reason), built.run("fine")])
    assert f"UserError: {HOSTILE}" in shown.text and "more characters)" in shown.text
    (about,) = (one["title"] for one in shown.all("span", class_="chip status-failed") if "title" in one)
    assert about.startswith("UserError") and len(about) < 350


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_report_artifacts_that_are_gone_leave_the_metrics(built, page, damage):
    run = built.run("one", accuracy=ACCURACY)
    if damage == "removed":
        shutil.rmtree(built.store.root / "artifacts")
    else:
        for table in built.store.root.rglob("*.parquet"):
            table.write_bytes(table.read_bytes()[:20])
    shown = page([run])
    assert shown.rows[2][1] == "0.500±0.020"
    assert "no longer in the store" in shown.text


def test_report_source_that_is_gone_still_shows_what_was_taken(built, page):
    run = built.run("one")
    shutil.rmtree(built.store.root / "artifacts" / "source")
    assert "original taken IFD 0.250 · r-IFD 0.600 instruction say it response say it" in page([run]).text


def test_report_no_runs_is_a_sentence(page):
    assert "There are no runs to compare." in page([]).text


def test_report_place_that_can_t_be_written_is_a_user_error(built, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        write_report([built.run("one")], Path(tmp_path / "file" / "report.html"))
