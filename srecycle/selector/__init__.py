"""The student's choices between the versions of a row.

`selector@selector.instruction=NAME` and `selector@selector.response=NAME` pick them.
"""

from srecycle.selector.base import Contest as Contest
from srecycle.selector.base import Selector as Selector
from srecycle.selector.score import Score as Score
from srecycle.selector.select import Select as Select
