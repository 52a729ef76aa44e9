"""What our way of composing changes in Hydra."""

import copy

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.instantiate import _instantiate2
from hydra.core.config_store import ConfigStore

from srecycle.compose import build, config_folder, guarded
from srecycle.errors import UserError


def test_hydras_own_settings_are_shared_by_compositions_and_changed_by_none() -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        renamed = compose("config", ["hydra.job.name=another", "hydra.sweep.dir=elsewhere"], return_hydra_config=True)
        plain = compose("config", return_hydra_config=True)
    assert renamed.hydra.job.name == "another" and renamed.hydra.sweep.dir == "elsewhere"
    assert plain.hydra.job.name == "srecycle" and plain.hydra.sweep.dir != "elsewhere"
    store = ConfigStore.instance()
    assert copy.deepcopy({"store": store})["store"] is store


def test_guard_stands_while_its_context_is_open_however_deep() -> None:
    def resolver() -> object:
        return _instantiate2._resolve_target

    before = resolver()
    with guarded():
        guard = resolver()
        with guarded():
            assert resolver() is guard
        assert resolver() is guard is not before
    assert resolver() is before


def test_refused_address_is_told_without_its_password() -> None:
    overrides = ["teacher=openai", "teacher.model=m", "teacher.base_url='https://user:planted@host/v1'"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides)
    with pytest.raises(UserError, match=r"teacher\.base_url=.*@host/v1") as told:
        build(config)
    assert "planted" not in str(told.value)
