"""Judges of each kind behind a server on this machine, for what holds of all of them."""

from collections.abc import Iterator

import pytest

from tests.faulty_server import FaultyServer
from tests.unit.evaluator.judging import KINDS, Kind


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def server(kind: Kind) -> Iterator[FaultyServer]:
    with FaultyServer(text=kind.told) as serving:
        yield serving
