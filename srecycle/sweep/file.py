"""A W&B sweep file, read as W&B reads it: a program, a method, a metric, and parameters.

Each parameter is an override of the command line: `${args_no_hyphens}` in `command` becomes KEY=VALUE for each, and
whatever else stands in `command` behind the program is given to every run. The file's syntax is W&B's
(https://docs.wandb.ai/guides/sweeps/sweep-config-keys); what we don't run here is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from srecycle.compose import PACKAGE
from srecycle.errors import UserError

Value = bool | int | float | str | None
Method = Literal["grid", "random", "bayes"]

_METHODS = ("grid", "random", "bayes")
_KEYS = (
    *("name", "description", "project", "entity", "program", "command", "method"),
    *("metric", "parameters", "run_cap"),
)
DISTRIBUTIONS = ("uniform", "int_uniform", "q_uniform", "log_uniform_values")
"""Those that are drawn from here: of W&B's, the ones that an interval describes."""

_ARGUMENTS = "${args_no_hyphens}"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """What one key may be: one of `values`, or a number between `low` and `high` (in steps of `step` where it is set).

    `distribution` is W&B's word for it.
    """

    name: str
    distribution: str
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None

    def allows(self, value: Value) -> bool:
        """Say whether a value is one of those."""
        if self.values:
            return value in self.values
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """What a file says. `fixed` are the overrides that every run is given, `run_cap` how many runs there may be."""

    name: str
    method: Method
    parameters: tuple[Parameter, ...]
    fixed: tuple[str, ...]
    metric: str | None
    maximize: bool
    run_cap: int | None


def shipped() -> dict[str, Path]:
    """Return our own sweep files by name: inside a wheel, or at the top of a checkout."""
    wheel = PACKAGE / "_sweeps"
    return {file.stem: file for file in sorted((wheel if wheel.is_dir() else PACKAGE.parent / "sweeps").glob("*.yaml"))}


def read_file(path: Path) -> SweepFile:
    """Read a sweep file, or one of ours by its name alone.

    Raises UserError where it isn't one, or asks for what can't be done here.
    """
    own = shipped()
    if not path.exists():
        path = own.get(str(path), path)
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        names = ", ".join(own)
        raise UserError(f"{path} can't be read ({error.strerror}): give a W&B sweep file, or one of {names}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    try:
        return _parsed(content, path.stem)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _parsed(content: Any, stem: str) -> SweepFile:
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict) or not content["parameters"]:
        raise ValueError("has no parameters: expected method, metric and parameters, as W&B has them")
    if unknown := [name for name in content if name not in _KEYS]:
        raise ValueError(f"{unknown[0]} is not understood here; known are {', '.join(_KEYS)}")
    method = content.get("method")
    if method not in _METHODS:
        raise ValueError(f"method {method!r} is not known: expected one of {', '.join(_METHODS)}")
    metric = content.get("metric") or {}
    name, goal = metric.get("name"), metric.get("goal", "minimize")
    if method == "bayes" and not name:
        raise ValueError("method bayes needs a metric (name and goal) to optimize")
    if goal not in ("minimize", "maximize"):
        raise ValueError(f"metric.goal {goal!r} is not known: expected minimize or maximize")
    parameters = tuple(_parameter(str(key), spec) for key, spec in content["parameters"].items())
    if method == "grid" and (open_ended := [one.name for one in parameters if not one.values]):
        raise ValueError(f"method grid needs values for {open_ended[0]}: it can't list an interval")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        raise ValueError(f"run_cap {cap!r} should be a positive whole number")
    return SweepFile(
        name=str(content.get("name") or stem),
        method=method,
        parameters=parameters,
        fixed=_fixed(content.get("command")),
        metric=name,
        maximize=goal == "maximize",
        run_cap=cap,
    )


def _fixed(command: Any) -> tuple[str, ...]:
    """Return the overrides of a command: what stands in it behind the program, less the parameters."""
    if not isinstance(command, list) or _ARGUMENTS not in command:
        raise ValueError(f"command needs {_ARGUMENTS}, which gives Hydra KEY=VALUE")
    parts = [str(part) for part in command]
    own = [part for part in parts if part not in ("${env}", "${interpreter}", "${program}", _ARGUMENTS)]
    own = own[1:] if own and own[0] == "srecycle" else own
    if macros := [part for part in own if "${" in part]:
        raise ValueError(f"command has {macros[0]}, which is not understood here: {_ARGUMENTS} gives the parameters")
    return tuple(own)


def _parameter(name: str, spec: Any) -> Parameter:
    if not isinstance(spec, Mapping):
        raise ValueError(f"parameters.{name} should have value, values, or min and max")
    if "parameters" in spec:
        raise ValueError(f"parameters.{name} is nested: write its dotted key instead, {name}.KEY")
    if "value" in spec:
        return Parameter(name=name, distribution="constant", values=(_value(name, spec["value"]),))
    if "values" in spec:
        if not isinstance(spec["values"], list) or not spec["values"]:
            raise ValueError(f"parameters.{name}.values should be a list of at least one")
        values = tuple(_value(name, value) for value in spec["values"])
        return Parameter(name=name, distribution="categorical", values=values)
    return _interval(name, spec)


def _interval(name: str, spec: Mapping[str, Any]) -> Parameter:
    low, high = (_number(name, spec.get(end)) for end in ("min", "max"))
    if low >= high:
        raise ValueError(f"parameters.{name}: min {low} should be below max {high}")
    whole = isinstance(low, int) and isinstance(high, int)
    distribution = str(spec.get("distribution", "int_uniform" if whole else "uniform"))
    if distribution not in DISTRIBUTIONS:
        known = ", ".join(DISTRIBUTIONS)
        raise ValueError(f"parameters.{name}.distribution {distribution} is not drawn from here: expected {known}")
    if distribution == "log_uniform_values" and low <= 0:
        raise ValueError(f"parameters.{name}: min {low} should be above 0 on a logarithmic scale")
    step = spec.get("q", 1) if distribution in ("q_uniform", "int_uniform") else None
    if step is not None and not step > 0:
        raise ValueError(f"parameters.{name}.q {step} should be above 0")
    return Parameter(name=name, distribution=distribution, low=low, high=high, step=step)


def _number(name: str, bound: Any) -> int | float:
    if not isinstance(bound, int | float) or isinstance(bound, bool):
        raise ValueError(f"parameters.{name} should have value, values, or min and max (numbers)")
    return bound


def _value(name: str, value: Any) -> Value:
    if value is None:
        raise ValueError(f"parameters.{name} has an empty value, which W&B writes as None: write the text null")
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f'parameters.{name}: {value!r} should be a single value; a list is written as text, "[a,b]"')
    return value


def arguments(values: Mapping[str, Value]) -> tuple[str, ...]:
    """Return a setting as overrides, written as `wandb agent` writes them for `${args_no_hyphens}`."""
    return tuple(f"{name}={value}" for name, value in values.items())
