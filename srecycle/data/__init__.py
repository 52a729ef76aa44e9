"""Sources of rows. `data=NAME` picks one."""

from srecycle.data.base import Data as Data
from srecycle.data.base import Source as Source
