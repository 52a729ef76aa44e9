"""The training set: what was taken and kept, in the shape in which it is learnt. `assemble.*` are its settings."""

from srecycle.assemble.base import Assembly as Assembly
from srecycle.assemble.stage import Assemble as Assemble
