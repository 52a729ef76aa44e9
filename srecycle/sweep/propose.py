"""Which settings a sweep tries next: every combination, draws by chance, or what optuna takes for promising.

A grid lists its combinations, the last parameter varying fastest. Draws are a fixed sequence of the seed, of which more
runs see more. Bayes (optuna's TPE sampler) sees what has been measured so far.
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from srecycle.errors import UserError
from srecycle.sweep.file import Parameter, SweepFile, Value

Setting = Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A setting that was run: the metric's value, or None where it failed or still runs."""

    values: Setting
    metric: float | None
    running: bool = False


def grid(file: SweepFile) -> list[Setting]:
    """Return every combination."""
    names = [one.name for one in file.parameters]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*(p.values for p in file.parameters))]


def drawn(file: SweepFile, count: int, seed: int) -> list[Setting]:
    """Return the first `count` draws; a setting that comes up again is not run again, so there may be fewer."""
    found: dict[tuple[Value, ...], Setting] = {}
    for number in range(count):
        rng = random.Random(f"{seed}|{number}")
        setting = {one.name: _draw(one, rng) for one in file.parameters}
        found.setdefault(tuple(setting.values()), setting)
    return list(found.values())


def _draw(one: Parameter, rng: random.Random) -> Value:
    if one.values:
        return rng.choice(one.values)
    if one.distribution == "log_uniform_values":
        return math.exp(rng.uniform(math.log(one.low), math.log(one.high)))
    if one.step is None:
        return rng.uniform(one.low, one.high)
    steps = math.floor((one.high - one.low) / one.step + 1e-9)
    return round(one.low + one.step * rng.randint(0, steps), 12)


def promising(file: SweepFile, tried: Sequence[Tried], seed: int) -> Setting:
    """Return what to try after these, in the order in which they were begun.

    Raises UserError where optuna isn't installed.
    """
    optuna: Any = bayes_library()
    space = {one.name: _distribution(one, optuna) for one in file.parameters}
    study = optuna.create_study(
        direction="maximize" if file.maximize else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed + len(tried), constant_liar=True),
    )
    for one in tried:
        with suppress(ValueError):  # a setting that the file doesn't allow any more
            study.add_trial(_trial(one, space, optuna))
    return dict(study.ask(space).params)


def _trial(one: Tried, space: Mapping[str, Any], optuna: Any) -> Any:
    state = optuna.trial.TrialState
    unmeasured = state.RUNNING if one.running else state.FAIL
    return optuna.trial.create_trial(
        params=dict(one.values),
        distributions=dict(space),
        value=one.metric,
        state=unmeasured if one.metric is None else state.COMPLETE,
    )


def bayes_library() -> Any:
    """Import optuna. Raises UserError where it isn't installed."""
    try:
        import optuna
    except ImportError as error:
        raise UserError("method bayes needs optuna: pip install 'srecycle[bayes]' (or use method: random)") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(one: Parameter, optuna: Any) -> Any:
    if one.values:
        return optuna.distributions.CategoricalDistribution(one.values)
    if one.distribution == "int_uniform":
        return optuna.distributions.IntDistribution(int(one.low), int(one.high), step=int(one.step or 1))
    logarithmic = one.distribution == "log_uniform_values"
    return optuna.distributions.FloatDistribution(one.low, one.high, log=logarithmic, step=one.step)
