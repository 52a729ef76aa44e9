"""The command line: Hydra composes the configuration, it becomes an Experiment, and the experiment runs.

DictConfig never leaves this file. Users' mistakes end in one line on standard error and exit code 2.
"""

import difflib
import errno
import importlib.metadata
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
from hydra._internal.instantiate import _instantiate2
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from srecycle.config import Component
from srecycle.errors import UserError
from srecycle.progress import say

_PACKAGE = Path(__file__).parent
_locate_target = _instantiate2._resolve_target
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_failed: list[str] = []

OmegaConf.register_new_resolver("srecycle.package", lambda path: str(_PACKAGE / path), replace=True)


def main() -> None:
    """Run the command line."""
    if not sys.stderr.isatty():  # the libraries' bars; our own progress prints plain lines there
        os.environ.setdefault("TQDM_DISABLE", "1")
    # SIGTERM unwinds like an exception, so that trackers and stages close what they have open.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets its errors through, and we word them
    try:
        with mock.patch.object(_instantiate2, "_resolve_target", _located):
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(_job)()
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        say("srecycle: interrupted; the same command goes on where it stopped")
        sys.exit(130)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # Hydra refuses a null group by a bare ValueError; any other that comes this far is a bug, and shows as one.
        users = isinstance(error, HydraException | OmegaConfBaseException) or "Config group override" in str(error)
        if wants_traceback or not users:
            raise
        _fail(UserError(_worded(error)))
    sys.exit(2 if _failed else 0)


def config_folder() -> Path:
    """Return the folder of the configuration: inside a wheel, or at the top of a checkout."""
    wheel = _PACKAGE / "_conf"
    return wheel if wheel.is_dir() else _PACKAGE.parent / "conf"


def _job(config: DictConfig) -> None:
    """Run one job: one configuration of perhaps many. A user's mistake in one doesn't stop the others."""
    try:
        mode, experiment = build(config)
        if mode == "plan":
            from srecycle.report.screen import show_plan
            from srecycle.runner import planned

            show_plan(planned(experiment))
        else:
            _run(experiment)
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        _fail(
            UserError(
                f"{error.filename or config.store}: {error.strerror}; what is finished stays, free the way and run"
            )
        )


def _run(experiment: Any) -> None:
    from srecycle.report.html import write_report
    from srecycle.report.runs import read_run
    from srecycle.report.screen import show_runs
    from srecycle.runner import run

    settings = HydraConfig.get()
    choices = {name: str(choice) for name, choice in settings.runtime.choices.items() if not name.startswith("hydra/")}
    folder = run(experiment, choices, list(settings.overrides.task))
    if settings.mode != RunMode.MULTIRUN:  # a sweep is compared as a whole when it ends
        results = [read_run(folder)]
        show_runs(results)
        say(f"report: {write_report(results, folder / 'report.html')}")


def _fail(error: UserError) -> None:
    _failed.append(str(error))
    say(f"srecycle: error: {' '.join(str(error).split())}")


def build(config: DictConfig) -> tuple[str, Any]:
    """Turn a composed configuration into (mode, Experiment).

    Raises UserError where a value is missing, of a wrong type or out of range, or a `_target_` is not allowed.
    """
    try:
        tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(_missing(error)) from error
    assert isinstance(tree, dict)
    tree.pop("hydra", None)
    tree.pop("seed")  # other values refer to it; by itself it says nothing
    mode = tree.pop("mode")
    if mode not in ("run", "plan"):
        raise UserError(f"mode={mode} is not known: use mode=run or mode=plan")
    if empty := [str(name) for name, value in tree.items() if value is None]:
        raise UserError(f"{empty[0]} is null: choose one of its options, `srecycle --help` lists them")
    if not tree["group"] and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        tree["group"] = Path(HydraConfig.get().sweep.dir).name
    _check_targets(tree)
    try:
        return mode, hydra.utils.instantiate(tree, _convert_="all")
    except InstantiationException as error:
        raise UserError(_explained(error)) from error


def _worded(error: Exception) -> str:
    """Put what Hydra says of a command line it can't compose into a line."""
    if isinstance(error, OverrideParseException):
        return f"{error.override} can't be read as an override ({str(error).splitlines()[0]}): expected KEY=VALUE"
    told = str(error).partition("Config search path")[0]
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    if match := re.match(r"Could not override '([^']+)'", lines[0]):
        return (
            f"{match[1]} is no configuration key: `srecycle --cfg job` lists them (with the same group choices); "
            "an entry that a mapping doesn't have yet is added with +KEY=VALUE"
        )
    return "; ".join(line for line in lines if not line.startswith(("full_key", "object_type")))


def _missing(error: OmegaConfBaseException) -> str:
    key = getattr(error, "full_key", None)
    first = str(error).splitlines()[0]
    return f"{key} is not set: give it on the command line, {key}=VALUE" if "issing" in first and key else first


def _check_targets(node: Any, place: str = "") -> None:
    """Refuse every `_target_` that is not a component of ours or of an installed plugin: Hydra would call it."""
    if isinstance(node, dict):
        if (target := node.get("_target_")) is not None and not _is_component(target):
            raise UserError(f"{place or 'config'}._target_={target} is refused: it names no component of srecycle")
        for key, value in node.items():
            _check_targets(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, str) and "${" in node:
        # Building resolves a second time: what such a text would become was never looked at.
        raise UserError(f"{place} holds '${{', which would be replaced once more: write it in another way")
    elif isinstance(node, list | ListConfig):
        for index, value in enumerate(node):
            _check_targets(value, f"{place}[{index}]")


def _located(target: Any, place: str) -> Any:
    """Locate what a `_target_` names, where it may be run at all.

    Hydra builds nodes of its own (callbacks, launcher, sweeper) before our job begins, and resolves values once more
    while it builds ours. So the question is asked here too, where every target passes.
    """
    ours = target == "srecycle.report.callback.Comparison" or _is_component(target)
    if not ours and not str(target).startswith(("hydra._internal.core_plugins.", "hydra_plugins.")):
        raise UserError(f"{place or 'config'}._target_={target} is refused: it names no component of srecycle")
    return _locate_target(target, place)


@cache
def _plugins() -> set[str]:
    """Return the packages of installed plugins; finding them reads every installed package's metadata."""
    return {point.module.partition(".")[0] for point in importlib.metadata.entry_points(group="srecycle.plugins")}


def _is_component(target: Any) -> bool:
    module = str(target).rpartition(".")[0]
    if module.partition(".")[0] not in {"srecycle", *_plugins()}:
        return False
    try:
        found = hydra.utils.get_class(str(target))
    except (ImportError, AttributeError, ValueError):
        return False
    return issubclass(found, Component) and found.__module__ == module


def _explained(error: InstantiationException) -> str:
    """Say in a line which field was refused and why: Hydra wraps the validation error that knows."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError | UserError):
        cause = cause.__cause__
    place = str(error).splitlines()[-1].removeprefix("full_key: ") if "full_key: " in str(error) else ""
    if isinstance(cause, ValidationError):
        return "; ".join(_complaints(cause, place))
    return str(cause or error)


def _complaints(error: ValidationError, place: str) -> Iterator[str]:
    for item in error.errors():
        field = ".".join([place, *(str(part) for part in item["loc"])]).strip(".")
        if item["type"] in ("missing", "too_short") or not item["loc"]:
            yield f"{field}: {item['msg']}"
        elif item["type"] == "unexpected_keyword_argument":
            yield f"{field} is not a setting of {error.title}{_similar(str(item['loc'][-1]), error.title)}"
        else:
            # A key itself, given for the name of its variable, is not to be repeated.
            given = "(not shown)" if field.endswith("key_variable") else repr(item["input"])
            yield f"{field}={given}: {item['msg']}"


def _similar(name: str, component: str) -> str:
    known = {cls.__name__: cls for cls in _subclasses(Component)}.get(component)
    names: list[str] = [field.name for field in fields(known)] if known and is_dataclass(known) else []
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{hint}; it has: {', '.join(names)}" if names else hint


def _subclasses(cls: type[Component]) -> Iterator[type[Component]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


if __name__ == "__main__":
    main()
