"""From a composed configuration to an experiment: what Hydra may build, and how its errors are worded.

DictConfig and Hydra's exceptions never leave this file and the command line.
"""

import difflib
import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.instantiate import _instantiate2
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from srecycle.errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from srecycle.config import Component

PACKAGE = Path(__file__).parent
_PASSWORD = re.compile(r"//[^/\s]*@")
_HOW_TO_CALL = ("_args_", "_partial_", "_recursive_", "_convert_")
_MOST_COMPLAINTS = 5
_LONGEST_SHOWN = 200
_locate_target = _instantiate2._resolve_target

OmegaConf.register_new_resolver("srecycle.package", lambda path: str(PACKAGE / path), replace=True)

# Hydra copies its sources, and with them all of its own settings, whenever it lists a group: some 190 times for --help,
# which takes longer than all else. The settings are one for the whole process, and nobody writes to the copies.
ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]


def config_folder() -> Path:
    """Return the folder of the configuration: inside a wheel, or at the top of a checkout."""
    wheel = PACKAGE / "_conf"
    return wheel if wheel.is_dir() else PACKAGE.parent / "conf"


@contextmanager
def guarded() -> Iterator[None]:
    """Hold whatever Hydra builds to components of ours while this context is open."""
    before, _instantiate2._resolve_target = _instantiate2._resolve_target, _located
    try:
        yield
    finally:
        _instantiate2._resolve_target = before


def build(config: DictConfig) -> tuple[str, Any]:
    """Turn a composed configuration into (mode, Experiment).

    Raises UserError where a value is missing, of a wrong type or out of range, or a `_target_` is not allowed.
    """
    try:
        return _built(config)
    except OmegaConfBaseException as error:
        raise UserError(_missing(error)) from error
    except InstantiationException as error:
        raise UserError(explained(error)) from error
    except RecursionError as error:
        raise UserError("the configuration is nested too deep to be read: give a flatter value") from error


def _built(config: DictConfig) -> tuple[str, Any]:
    tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(tree, dict)
    if gone := [name for name in ("_target_", "mode", "seed", "group") if name not in tree]:
        raise UserError(f"{gone[0]} was taken out of the configuration, which needs it: leave out ~{gone[0]}")
    tree.pop("hydra", None)
    tree.pop("seed")  # other values refer to it; by itself it says nothing
    mode = tree.pop("mode")
    if mode not in ("run", "plan"):
        raise UserError(f"mode={_shown(mode)} is not known: use mode=run or mode=plan")
    if empty := [str(name) for name, value in tree.items() if value is None]:
        raise UserError(f"{empty[0]} is null: choose one of its options, `srecycle --help` lists them")
    if not tree["group"] and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        tree["group"] = Path(HydraConfig.get().sweep.dir).name
    check_targets(tree)
    return mode, hydra.utils.instantiate(tree, _convert_="all")


def worded(error: Exception) -> str:
    """Put what Hydra says of a command line it can't compose into a line."""
    lines = [_shown(line.strip()) for line in (str(error) or str(error.__cause__ or "")).splitlines() if line.strip()]
    first = lines[0] if lines else ""
    if isinstance(error, OverrideParseException):
        told = f"{_shown(error.override)} can't be read as an override ({first}): expected KEY=VALUE"
    elif isinstance(error, MissingConfigException) and error.options:
        told = f"there is no {_shown(error.missing_cfg_file)}: choose one of {', '.join(error.options)}"
    elif isinstance(error, GrammarParseError) or isinstance(error.__cause__, GrammarParseError):
        told = f"{first}: '${{' begins the name of another key, ${{KEY}}"
    elif match := re.match(r"Could not override '([^']+)'", first):
        told = (
            f"{match[1]} is no configuration key: `srecycle --cfg job` lists them (with the same group choices); "
            "an entry that a mapping doesn't have yet is added with +KEY=VALUE"
        )
    elif "Config group override" in first:
        told = f"{first}: give each group the name of an option, `srecycle --help` lists them"
    elif first and isinstance(error, HydraException | OmegaConfBaseException | ValueError):
        own = takewhile(lambda line: not line.startswith("Config search path"), lines)
        told = "; ".join(line for line in own if not line.startswith(("full_key", "object_type")))
    else:
        why = f"{type(error).__name__}: {first}".rstrip(": ")
        told = f"these overrides can't be composed ({why}): `srecycle --help` lists the groups and what each can be"
    return told


def _missing(error: OmegaConfBaseException) -> str:
    key = getattr(error, "full_key", None)
    if not key or not (lines := str(error).splitlines()):
        return worded(error)
    if "issing" in lines[0]:
        return f"{key} is not set: give it on the command line, {key}=VALUE"
    return f"{key} can't be filled in: {_shown(lines[0])}"


def check_targets(node: Any, place: str = "") -> None:
    """Refuse every `_target_` that is not a component of ours or of an installed plugin: Hydra would call it."""
    if isinstance(node, dict):
        if (target := node.get("_target_")) is not None and not _is_component(target):
            raise _refused(target, place)
        if found := [key for key in _HOW_TO_CALL if key in node]:
            raise UserError(f"{place or 'config'}.{found[0]} is refused: a part has its own settings only")
        for key, value in node.items():
            check_targets(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, str) and "${" in node:
        # Building resolves a second time: what such a text would become was never looked at.
        raise UserError(f"{place} holds '${{', which would be replaced once more: write it in another way")
    elif isinstance(node, list | ListConfig):
        for index, value in enumerate(node):
            check_targets(value, f"{place}[{index}]")


def _located(target: Any, full_key: str) -> Any:
    """Locate what a `_target_` names, where it may be run at all.

    Hydra builds nodes of its own (callbacks, launcher, sweeper) before our job begins, and resolves values once more
    while it builds ours. So the question is asked here too, where every target passes.
    """
    ours = target == "srecycle.report.callback.Comparison" or _is_component(target)
    if not ours and not str(target).startswith(("hydra._internal.core_plugins.", "hydra_plugins.")):
        raise _refused(target, full_key)
    return _locate_target(target, full_key)


def _refused(target: Any, place: str) -> UserError:
    shown = f"{place or 'config'}._target_={_shown(target)}"
    return UserError(f"{shown} is refused: it names no component of srecycle, nor of an installed plugin")


@cache
def _plugins() -> set[str]:
    """Return the packages of installed plugins; finding them reads every installed package's metadata."""
    import importlib.metadata

    return {point.module.partition(".")[0] for point in importlib.metadata.entry_points(group="srecycle.plugins")}


def _is_component(target: Any) -> bool:
    from srecycle.config import Component

    module, _, name = str(target).rpartition(".")
    package = module.partition(".")[0]
    if package != "srecycle" and package not in _plugins():
        return False
    try:  # not Hydra's get_class, which prints each failure before it raises it
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return False
    return isinstance(found, type) and issubclass(found, Component) and found.__module__ == module


def explained(error: InstantiationException) -> str:
    """Say in a line which field was refused and why: Hydra wraps the validation error that knows."""
    from pydantic import ValidationError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError | UserError):
        cause = cause.__cause__
    place = str(error).splitlines()[-1].removeprefix("full_key: ") if "full_key: " in str(error) else ""
    if isinstance(cause, ValidationError):
        told = complaints(cause, place)
        first, rest = list(islice(told, _MOST_COMPLAINTS)), sum(1 for _ in told)
        return "; ".join([*first, f"and {rest} more of this kind"] if rest else first)
    return str(cause or error)


def complaints(error: "ValidationError", place: str) -> Iterator[str]:
    for item in error.errors():
        field = ".".join([place, *(str(part) for part in item["loc"])]).strip(".")
        if field in ("keep", "evaluator") and item["type"] in ("missing", "too_short"):
            yield f"{field} is empty: name at least one, or {field}=[none]"
        elif item["type"] in ("missing", "too_short") or not item["loc"]:
            yield f"{field}: {item['msg']}"
        elif item["type"] == "unexpected_keyword_argument":
            yield f"{field} is not a setting of {error.title}{_similar(str(item['loc'][-1]), error.title)}"
        else:
            # A key itself, given for the name of its variable, is not to be repeated.
            given = "(not shown)" if field.endswith("key_variable") else _shown(repr(item["input"]))
            yield f"{field}={given}: {item['msg']}"


def _shown(value: Any) -> str:
    """Write a value as far as a line has place for it: no password of an address, nothing that commands a terminal."""
    text = _PASSWORD.sub("//...@", str(value))
    first = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:_LONGEST_SHOWN])
    return first if len(text) <= _LONGEST_SHOWN else f"{first}... ({len(text)} characters)"


def _similar(name: str, component: str) -> str:
    from srecycle.config import Component

    known = {cls.__name__: cls for cls in _subclasses(Component)}.get(component)
    names: list[str] = [field.name for field in fields(known)] if known and is_dataclass(known) else []
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{hint}; it has: {', '.join(names)}" if names else hint


def _subclasses(cls: type["Component"]) -> Iterator[type["Component"]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)
