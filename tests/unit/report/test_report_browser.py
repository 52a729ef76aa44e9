"""The decision browser: diffs, tokens, flip distances, search and filters."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srecycle.report.decisions import cases
from srecycle.report.html import write_report
from srecycle.report.worddiff import word_diff
from srecycle.rows import DECISION_SCHEMA, LIKELIHOOD_SCHEMA, Likelihood, to_table
from tests.chromium import opened

HOSTILE = "<script>alert(1)</script> \u202eright to left\"'>"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("sort the list", "sort the long list now"),
        ("", "all new"),
        ("all gone", ""),
        ("same", "same"),
        ("a b c d e", "a x y z e"),
        ("line one\nline two", "line one\n\nline  2"),
        ("word " * 900, "word " * 450 + "other " + "word " * 450),
        (HOSTILE, HOSTILE[::-1]),
    ],
)
def test_word_diff_without_what_was_removed_is_the_new_text(before, after):
    assert "".join(one.text for one in word_diff(before, after) if one.kind != "removed") == after


def test_word_diff_marks_the_changed_words_only():
    pieces = [(one.kind, one.text) for one in word_diff("sort the list now", "sort the long list")]
    assert pieces == [("same", "sort the "), ("added", "long "), ("same", "list"), ("removed", " now")]


def test_word_diff_rewritten_stretch_reads_as_one_change():
    pieces = [(one.kind, one.text) for one in word_diff("keep one two keep", "keep three four keep")]
    assert pieces == [("same", "keep "), ("removed", "one two"), ("added", "three four"), ("same", " keep")]


def with_tokens(built, count):
    """Give row a's original so many tokens; the one in the middle is the least likely after the instruction."""
    given = [9.0 if place == 1 else 0.1 for place in range(count)]
    texts, alone = [HOSTILE if place == 1 else "the" for place in range(count)], [4.0] * count
    likelihood = Likelihood(
        **{"id": "a", "version": "original", "status": "ok", "loss_y_given_x": 1.0, "loss_y": 2.0},
        **{"loss_x_given_y": 1.0, "loss_x": 2.0, "tokens_y": count, "tokens_x": 5, "context_truncated": False},
        **{"y_tokens": texts, "y_given_x_token_losses": given, "y_token_losses": alone},
    )
    built.put("likelihoods", "k9", "likelihoods", to_table([likelihood], LIKELIHOOD_SCHEMA))
    run = built.run("one")
    stages = [{**one, "key": "k9" if one["label"] == "likelihoods" else one["key"]} for one in run.stages]
    return replace(run, stages=stages)


def test_tokens_are_read_where_they_were_kept(built):
    (case,) = (one for one in cases(with_tokens(built, 300), 3) if one.id == "a")
    tokens = {one.version: one for one in case.versions}["original"]
    assert [round(one.given_instruction, 3) for one in tokens.tokens[:3]] == [0.1, 9.0, 0.1]
    assert tokens.tokens[0].alone == 4.0
    assert (len(tokens.tokens), tokens.more_tokens) == (250, 50)
    assert not {one.version: one for one in case.versions}["both"].tokens


def test_tokens_are_shaded_by_their_loss_with_and_without_the_instruction(built, page):
    shown = page([with_tokens(built, 3)])
    shades = [one["class"] for one in shown.all("i")]
    assert shades == ["h0", "h9", "h0", "h5", "h5", "h5"]
    assert [one["title"] for one in shown.all("i")][:2] == ["0.10", "9.00"]
    assert len(shown.all("script")) == 1
    assert "[U+202E]right to left" in shown.text


def test_tokens_of_many_runs_are_left_to_the_original_and_what_was_taken(built, page, monkeypatch):
    run = with_tokens(built, 3)
    every = [("a", "original"), ("a", "instruction"), ("a", "both")]
    table = pq.read_table(built.store.folder("likelihoods", "k9") / "likelihoods.parquet").to_pylist()
    lines = [{**table[0], "id": one, "version": version} for one, version in every]
    built.put("likelihoods", "k9", "likelihoods", pa.Table.from_pylist(lines, LIKELIHOOD_SCHEMA))
    assert len(page([run]).all("i")) == 3 * 6
    monkeypatch.setattr("srecycle.report.details._MANY", 0)
    assert len(page([run]).all("i")) == 2 * 6


def test_rewrites_are_shown_as_changes_of_the_original(built, page):
    shown = page([built.run("one")])
    assert len(shown.all("ins")) > 1 and len(shown.all("del")) > 1
    assert "instruction say it a0 both response say it y0 better" in shown.text


def test_flip_distances_stand_beside_the_decisions(built, page):
    run = built.run("one")
    line = {"incumbent": "original", "challenger": "response", "challengers": 1, "chosen": "original", "margin": -0.3}
    values = {"incumbent_value": 0.5, "challenger_value": 0.2, "flip": -0.3, "reason": "below_margin"}
    built.put(
        "select_response", "k0", "decisions", pa.Table.from_pylist([{"id": "a", **line, **values}], DECISION_SCHEMA)
    )
    training = cases(run, 3)
    assert [choice.flip for choice in training[-1].choices if choice.phase == "response"] == [-0.3]
    assert ", below margin; a threshold -0.3 away decides otherwise" in page([run]).text


def test_reasons_name_their_phase(built):
    (case,) = (one for one in cases(built.run("one"), 3) if one.id == "a")
    assert case.reasons == ["instruction: incumbent won", "response: incumbent won"]


def test_browser_searches_and_filters_hostile_rows(built, tmp_path, browser):
    built.text = HOSTILE
    path = write_report([built.run("one")], tmp_path / "report.html")
    with opened(browser, path) as shown:
        page = shown.page
        page.locator("details.run > summary").click()
        cases = page.locator("article.case:visible")

        def outcomes():
            return [case.get_attribute("data-outcome") for case in cases.all()]

        every = ["original: response not reflected", "response: kept", "both: kept"]
        assert outcomes() == every
        page.locator(".find").fill("A0")
        assert outcomes() == ["both: kept"] and page.locator(".found").inner_text() == "1 of 3"
        page.locator(".find").fill("")
        page.locator(".outcomes").select_option("both: kept")
        assert outcomes() == ["both: kept"]
        page.locator(".outcomes").select_option("")
        page.locator(".reasons").select_option("response: incumbent won")
        assert outcomes() == every
        page.locator(".find").fill("nothing like it")
        assert outcomes() == []
        assert page.locator("script").count() == 1
        assert shown.said == shown.fetched == []
