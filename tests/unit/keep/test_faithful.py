"""Faithfulness: each class of what an instruction fixes, kept, changed and lost; and what real rewrites do."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srecycle.keep.faithful import NAMES, Faithful, unfaithful
from srecycle.reflection.parsing import parse
from srecycle.rows import KINDS
from tests.unit.keep.taken import permuted, taken

CASES = [
    # numbers
    ("Name 3 tips.", "Name three tips, and explain each.", ""),
    ("Name five tips.", "Name 5 tips.", ""),
    ("Name 3 tips.", "Name four useful tips.", "number_changed"),
    ("Name 3 tips.", "Name some tips.", "number_lost"),
    ("A fund of $1,000.50 earns 4%.", "It holds 1000.5 dollars, at 4.0 percent.", ""),
    ("A fund of $1,000 earns 4%.", "It holds 1,001 dollars, at 4 percent.", "number_lost"),
    ("Add 12 and 30.", "Add 12 and 3.0", "number_lost"),
    ("Explain COVID-19, GPT-4 and one of the following.", "Explain COVID, GPT and some of these.", ""),
    ("1. Do this. (2) Do that.", "Do this and that.", ""),
    ("Tell of three hundred men.", "Tell of 300 men.", ""),
    ("What is -5 + 3?", "What is 5 + 3?", "number_lost"),
    ("What is -5 + 3?", "Add 3 to minus 5.", ""),
    ("What is -5 + 3?", "Work out (\u22125) + 3, step by step.", ""),
    ("What is 8 - 5?", "What is 8 -5, or 8 minus 5?", ""),
    ("Simplify x -5.", "Simplify x - 5.", ""),
    ("Plan for 5-7 days.", "Plan for 5 to 7 days.", ""),
    ("Compute 1e5.", "Compute 1e6.", "number_lost"),
    ("Compute 1e5 and 2.5E-3.", "Compute 100,000 and 0.0025.", ""),
    ("What is 5% of a cake?", "What is 5 of a cake?", "number_changed"),
    ("What is 5% of a cake?", "What is five percent of a cake?", ""),
    ("Take 5% to 10% off.", "Take off 5-10%.", ""),
    ("Take 1% off.", "Take one per cent off.", ""),
    ("It costs $20.", "It costs 20 euros.", "number_changed"),
    ("It costs $20.", "It costs between 10 and 20 US dollars.", ""),
    ("It costs \u00a320.", "It costs 20 pounds.", ""),
    ("It weighs 20 pounds.", "It weighs 20 lb.", ""),
    ("A budget of $20 million.", "A budget of 20 million dollars.", ""),
    ("Why was 1066 important?", "Why did England change in the eleventh century?", "number_lost"),
    # code
    ("Fix `x = y[1]` here.", "Explain and fix  `x  =  y[1]`.", ""),
    ("Fix `total = price + tax`.", "Fix `total = price - tax`, which is wrong.", "code_changed"),
    ("Fix `lambda q: q`.", "Explain anonymous functions.", "code_lost"),
    ("Run:\n```python\nfor i in range(10):\n    print(i)\n```", "Run a loop that counts.", "code_lost"),
    ("Run:\n```\nprint(i)\n```", "What does `print(i)` do?", ""),
    ("Rewrite.\ndef area(length, width):\n  return length * width", "Rewrite the area function.", "code_lost"),
    ("Rewrite.\ndef area(w):\n  return w", "Rewrite it as a class:\ndef area(w):\n    return w", ""),
    ("Return to the text, and import it.", "Look at it.", ""),
    # names
    ("Summarize the Battle of Gettysburg.", "How did terrain matter at Gettysburg?", ""),
    ("Summarize the Battle of Gettysburg.", "Describe the Battle of Antietam.", "name_changed"),
    ("Summarize the Battle of Gettysburg.", "Describe a battle.", "name_changed"),
    ("Tell me about Marie Curie.", "Tell me about a chemist.", "name_lost"),
    ("Tell me about Marie Curie.", "What were Curie's main findings?", ""),
    ("Explain Artificial Intelligence.", "What is artificial intelligence good for?", ""),
    ("Marie knows. Write it.", "A girl knows. Write it.", ""),
    ("Write a poem about Paris.", "Write a poem about London.", "name_lost"),
    ("Explain Einstein's theory.", "Explain Newton's theory.", "name_lost"),
    ("Say that I know, as I'm told, plan B and Mr. X.", "Say that she knows the plan.", ""),
    ("List them. Colour: red, Size: big", "Which are red and big?", ""),
    ("Name cities in spring, as in Rome.", "Name rome and others.", ""),
    ("Explain World War I.", "Explain World War I to a child.", ""),
    ('Define "supply chain".', "Define \u201cSupply  chain\u201d for a student.", ""),
    ('Define "supply chain".', "Define logistics.", "name_lost"),
    ('Begin with "The sun shone brightly".', "Begin with how brightly the moon shone.", "name_changed"),
    ("Call load_rows and readFile.", "Call load_rows, then readFile.", ""),
    ("Call load_rows now.", "Call the function.", "name_lost"),
    ("Read https://a.org/x.", "Read the page.", "name_lost"),
    ("Read https://a.org/x.", "Read (https://a.org/x) first.", ""),
    # constraints
    ("Write it in 100 words.", "Write it in about 100 words.", ""),
    ("Write it in 100 words.", "Write a 100-word essay of it.", ""),
    ("Write it in at most 100 words.", "Write it in 80 to 100 words.", ""),
    ("Write it in 100 words or less.", "Write it in 150 words.", "constraint_changed"),
    ("Write it in at most 3 sentences.", "Write it in at least 3 sentences.", "constraint_changed"),
    ("Write a story of at least 100 words.", "Write a story of 200 to 250 words.", ""),
    ("Write a five sentence paragraph.", "Write a paragraph.", "constraint_lost"),
    ("Write three to five sentences.", "Write 3-5 sentences.", ""),
    ("Give the answer in JSON.", "Give the answer, with reasons, as a JSON object.", ""),
    ("Give the answer in JSON.", "Give the answer.", "constraint_lost"),
    ("Create a table of fruit.", "Create two tables of fruit and nuts.", ""),
    ("Translate it into French.", "Translate it into German.", "constraint_lost"),
    ("Sort a list in Python.", "Sort a list in Java.", "constraint_lost"),
    ("Sort without using loops.", "Sort a list, never using any loop.", ""),
    ("Sort without using loops.", "Sort a list with loops.", "constraint_changed"),
    ("Sort without using loops.", "Sort a list.", "constraint_lost"),
    ("Do not mention his works.", "Tell of his works.", "constraint_changed"),
    ("Do not mention money.", "Tell of money, and note that you should not worry.", "constraint_changed"),
    ("Do not mention money.", "Tell of fame, and of what else money" + " x" * 40 + " not.", "constraint_changed"),
    ("Do not mention money.", "Tell of fame. Money must not be mentioned.", ""),
    ("Do not mention money.", "Do not, for whatever reason there may be, speak of money.", ""),
    ("Use only natural ingredients.", "Bake natural ingredients, since you only live once.", "constraint_changed"),
    ("Use only natural ingredients.", "Bake it with natural ingredients.", "constraint_changed"),
    ("Use only natural ingredients.", "Bake it, with natural ingredients only.", ""),
    ("What happens if you do not sleep?", "What does sleep do?", ""),
    ("Write it in the first person.", "Write it in third-person.", "constraint_changed"),
    ("Write it in present tense.", "Write it.", "constraint_lost"),
    # a text without anything fixed
    ("Describe how plants grow.", "Explain photosynthesis to 12 pupils in 100 words.", ""),
]


@pytest.mark.parametrize(("before", "after", "found"), CASES, ids=[one[0][:40] + "|" + one[1][:40] for one in CASES])
def test_unfaithful_finds_what_was_lost_or_changed(before: str, after: str, found: str) -> None:
    assert unfaithful(after, "", before, "") == ({found} if found else set())


def test_unfaithful_takes_inputs_on_both_sides_but_no_constraints_from_them() -> None:
    assert unfaithful("Sum it.", "10 20", "Add 10 and 20.", "") == set()
    assert unfaithful("Sum it.", "10 20", "Add it.", "10 20 30") == {"number_lost"}
    assert unfaithful("Mend it.", "", "Correct it.", "I never use commas, and write in French.") == set()


def test_faithful_texts_are_read_once_for_reasons_and_findings() -> None:
    """Between the two the texts change under its feet: what was found stays, and other rows are read anew."""
    texts = {"instruction": ["Name 3."], "input": [""], "original_instruction": ["Name 3."], "original_input": [""]}
    chosen = taken(1, **texts)
    one = Faithful()
    assert one.reasons(chosen).tolist() == [""]
    chosen.texts["instruction"][0] = "Name 4."
    assert not one.findings(chosen)["number_lost"].any()
    assert Faithful().findings(chosen) is one.findings(chosen)
    assert [*Faithful(names=False).findings(chosen)] != [*one.findings(chosen)]
    assert one.reasons(chosen.only(np.array([True]))).tolist() == ["number_lost"]


def test_faithful_findings_are_forgotten_with_their_rows() -> None:
    """Rows of the same address follow one another: none is told what was found in one that is gone."""
    for number in range(300):
        now = ["Name 3." if number % 2 else "Name 4."]
        chosen = taken(1, instruction=now, input=[""], original_instruction=["Name 3."], original_input=[""])
        assert Faithful().reasons(chosen).tolist() == ["" if number % 2 else "number_lost"]
        del chosen


def test_faithful_reasons_are_the_first_and_findings_are_all() -> None:
    before = ['Name 3 uses of "tar" in JSON.', "Name 3 tips.", "Name 3 tips."]
    chosen = taken(
        3,
        instruction=["Name uses.", "Name three tips.", "Tell of tips."],
        input=[""] * 3,
        original_instruction=before,
        original_input=[""] * 3,
    )
    assert Faithful().reasons(chosen).tolist() == ["number_lost", "", "number_lost"]
    found = {name: rows.tolist() for name, rows in Faithful().findings(chosen).items() if rows.any()}
    assert found == {
        "number_lost": [True, False, True],
        "name_lost": [True, False, False],
        "constraint_lost": [True, False, False],
    }
    assert Faithful(action="flag").reasons(chosen).tolist() == ["", "", ""]
    assert Faithful(numbers=False).reasons(chosen).tolist() == ["name_lost", "", ""]
    off = Faithful(numbers=False, names=False, constraints=False, code=False)
    assert off.findings(chosen) == {} and off.reasons(chosen).tolist() == ["", "", ""]
    assert Faithful().reasons(permuted(chosen, [2, 0, 1])).tolist() == ["number_lost", "number_lost", ""]


def test_faithful_rewrite_of_the_response_alone_passes() -> None:
    versions = [*KINDS, "both-2"]
    same = {"instruction": ["Name tips."] * 5, "original_instruction": ["Name 3 tips."] * 5}
    chosen = taken(5, version=versions, input=[""] * 5, original_input=[""] * 5, **same)
    assert Faithful().reasons(chosen).tolist() == ["", "number_lost", "", "number_lost", "number_lost"]


TEXT = st.text(alphabet="aAbB 12,.\n\"`'-()_{};", max_size=60) | st.text(max_size=30)


@given(TEXT, TEXT)
def test_unfaithful_takes_any_text_and_never_blames_an_unchanged_one(before: str, given: str) -> None:
    assert unfaithful(before, given, before, given) == set()
    assert unfaithful("", "", before, given) <= {*NAMES}


def test_unfaithful_real_rows_against_themselves_find_nothing(shared: Path) -> None:
    rows = json.loads((shared / "data/alpaca_subset_3111.json").read_text())
    assert len(rows) == 3111
    for row in rows:
        texts = row["instruction"], row["input"]
        assert unfaithful(*texts, *texts) == set(), texts


def test_unfaithful_real_rewrites_are_found_as_read_by_hand(shared: Path) -> None:
    """19 of 120, all of them read. Three name a thing otherwise (the Second World War, of WWII, for example)."""
    rows = json.loads((shared / "data/alpaca_subset_3111.json").read_text())
    found: Counter[str] = Counter()
    for line in (shared / "data/reflections/replies.jsonl").read_text().splitlines():
        reply = json.loads(line)
        if reply["kind"] == "instruction":
            row, parsed = rows[reply["index"]], parse("instruction", reply["reply"], reply["finish_reason"])
            said = unfaithful(parsed.instruction, "", row["instruction"], row["input"])
            found.update(said)
            found["rows"] += bool(said)
    assert found == {
        **{"rows": 19, "number_lost": 3, "number_changed": 1, "name_lost": 8, "name_changed": 2},
        **{"constraint_lost": 3, "constraint_changed": 5},
    }
