"""How a stage maps its work over rows. `engine=NAME` picks one."""

from srecycle.engine.base import Engine as Engine
from srecycle.engine.base import Mapper as Mapper
