"""What a study is asked for: overrides in Hydra's language, of which those with several values span a grid.

In: overrides as the command line of `srecycle` takes them. Out: one experiment a setting. The configuration is
composed once for every combination of groups; where only values change, the selectors and keep filters alone are built
anew, so that a hundred settings cost little more than one.
"""

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from srecycle.compose import build, check_targets, complaints, config_folder, explained, guarded, worded
from srecycle.errors import UserError
from srecycle.experiment import Experiment

SWEPT = ("selector", "keep")
"""The parts of an experiment that are functions of what is in the store, and so cost nothing to vary."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One override with several values, as they were written."""

    name: str
    values: tuple[str, ...]

    @property
    def numbers(self) -> list[float] | None:
        """The values as numbers; None where one of them is none."""
        try:
            return [float(value) for value in self.values]
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of the grid: the value of each axis by its name, and the experiment that they make."""

    values: Mapping[str, str]
    overrides: tuple[str, ...]
    experiment: Experiment

    @property
    def command(self) -> str:
        """The overrides as a shell takes them."""
        return shlex.join(self.overrides)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The grid that overrides span, the last axis varying fastest."""

    axes: tuple[Axis, ...]
    settings: tuple[Setting, ...]


def sweep(overrides: Sequence[str], *, anything: bool = False) -> Sweep:
    """Compose the experiment of every setting. Loads no model and asks no teacher.

    Raises UserError where an override can't be read, or (unless `anything` may vary) varies what would have to be made
    first.
    """
    with composing() as parser:
        parsed = parser.parse_overrides(list(overrides))
        _refuse_repeated(parsed)
        varied = {one.get_key_element(): _axis(one, anything) for one in parsed if one.is_sweep_override()}
        choices = [
            [f"{key}={value}" for value in varied[key].values] if key in varied else [str(one.input_line)]
            for one in parsed
            for key in (one.get_key_element(),)
        ]
        values = {f"{key}={value}" for key, axis in varied.items() if _is_free(key) for value in axis.values}
        settings: list[Setting] = []
        composed: dict[tuple[str, ...], tuple[DictConfig, Experiment]] = {}
        for chosen in itertools.product(*choices):
            groups = tuple(one for one in chosen if one not in values)
            if groups not in composed:
                config = hydra.compose("config", overrides=list(chosen))
                composed[groups] = config, build(config)[1]
            config, experiment = composed[groups]
            for one in (one for one in chosen if one in values):
                override = parser.parse_override(one)
                OmegaConf.update(config, override.key_or_group, override.value())
            named = dict(zip((one.get_key_element() for one in parsed), chosen, strict=True))
            settings.append(
                Setting(
                    values={axis.name: named[key].removeprefix(f"{key}=") for key, axis in varied.items()},
                    overrides=chosen,
                    experiment=_rebuilt(config, experiment),
                )
            )
    return Sweep(axes=tuple(varied.values()), settings=tuple(settings))


@contextmanager
def composing() -> Iterator[OverridesParser]:
    """Prepare Hydra, hold its targets to ours, and word its errors as the command line does."""
    try:
        with (
            guarded(),
            hydra.initialize_config_dir(config_dir=str(config_folder()), version_base="1.3"),
        ):
            yield OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(worded(error)) from error
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        raise UserError(worded(error)) from error


def _refuse_repeated(parsed: Sequence[Override]) -> None:
    keys = [one.get_key_element() for one in parsed]
    if repeated := [key for place, key in enumerate(keys) if key in keys[:place]]:
        raise UserError(f"{repeated[0]} is given twice: give it once, with all its values")


def _axis(override: Override, anything: bool) -> Axis:
    """Return the axis of an override with several values. Raises UserError where it can't be one."""
    name = override.get_key_element()
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} has no values to be listed: use KEY=A,B, choice(A,B) or range(A,B,STEP)"
        )
    if not anything and override.key_or_group.partition(".")[0] not in SWEPT:
        raise UserError(
            f"{name} can't be varied here, since other replies or likelihoods would have to be made: give it one "
            f"value and vary selector.*, selector@selector.*, keep.* or keep; or run srecycle -m {override.input_line}"
        )
    values = tuple(override.sweep_string_iterator())
    if not values:
        raise UserError(f"{override.input_line} names no value: glob(...) chooses among the options of a group")
    if repeated := [value for place, value in enumerate(values) if value in values[:place]]:
        raise UserError(f"{name} has the value {repeated[0]} twice")
    return Axis(name=name.lstrip("+"), values=values)


def _is_free(key: str) -> bool:
    """Say whether a key names a value inside a part that costs nothing, not a group that makes such a part."""
    return "@" not in key and "." in key and key.partition(".")[0] in SWEPT


def _rebuilt(config: DictConfig, experiment: Experiment) -> Experiment:
    """Return the experiment with the selectors and keep filters of a configuration."""
    try:
        nodes: dict[str, Any] = {
            name: OmegaConf.to_container(config[name], resolve=True, throw_on_missing=True) for name in SWEPT
        }
        check_targets(nodes)
        return replace(experiment, **hydra.utils.instantiate(nodes, _convert_="all"))
    except InstantiationException as error:
        raise UserError(explained(error)) from error
    except ValidationError as error:
        raise UserError("; ".join(complaints(error, ""))) from error
