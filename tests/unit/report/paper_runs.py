"""Runs as they would be in the paper's setting, and how its tables are read."""

from srecycle.report.comparison import entries
from srecycle.report.paper import paper_grids
from srecycle.report.paper_published import setting

LIMITS = {
    "ifd_max": {"class": "x.IFDMax", "below": 1.0},
    "rifd_max": {"class": "x.ReversedIFDMax", "below": 1.0},
    "reflected": {"class": "x.ResponseReflectedOnly"},
}
SHOTS = setting()["shots"]
HARNESSED = {
    **{"class": "x.LMEval", "limit": None, "lm_eval": "0.4.13"},
    **{"num_fewshot": SHOTS, "metrics": dict.fromkeys(SHOTS, "acc")},
}


def one(name, **fields):
    """A component's identity."""
    return {"class": f"x.{name}", **fields}


ALPACA = setting()["data"]["alpaca"]["sha256"]
WIZARDLM = setting()["data"]["wizardlm"]["sha256"]


def config(instruction="IFD", response="ReversedIFD", *, file=ALPACA, trainer=None, **changes):
    """The configuration of a run that is as the paper's selective one on Alpaca, less what is given."""
    tuned = {"class": "x.FullTrainer", **setting()["training"]["7b"], **(trainer or {})}
    return {
        "selector": {"instruction": one(instruction, margin=0.0), "response": one(response, margin=0.0)},
        "keep": LIMITS if (instruction, response) == ("IFD", "ReversedIFD") else {"none": one("KeepAll")},
        "data": one("Alpaca", path=file, limit=None, positions=[]),
        "student": one("Student", path="meta-llama/Llama-2-7b-hf", max_length=2048, adapter=None, adapters=[]),
        "template": one("PromptTemplate", user=setting()["template"]),
        "teacher": one("OpenAITeacher", model="gpt-3.5-turbo-0125"),
        "assemble": one("Assembly", extra=None, originals=0.0),
        "trainer": tuned,
        "evaluator": {"open_llm_v1": HARNESSED},
        **changes,
    }


def table(built, number):
    """One of the paper's tables, with the runs that were built."""
    (grid,) = (one for one in paper_grids(entries(built.runs)) if one.name == f"paper-table-{number}")
    return grid


def row(grid, name, whose="paper"):
    """The first row of a line that is the paper's, `own` or a `difference`, by the columns' heads."""
    found = (each for each in grid.rows if each[0].text == name and each[1].text.startswith(whose))
    return dict(zip(grid.heads, next(found), strict=True))


def lines_of(grid, label):
    """The lines that a run fills."""
    return [each[0].text for each in grid.rows if each[1].text == f"own: {label}"]
