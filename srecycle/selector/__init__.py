"""The student's choices: between versions (selectors), and which rows to train on (keep filters).

`selector@selector.instruction=NAME`, `selector@selector.response=NAME` and `keep=[NAME,...]` pick them.
"""

from srecycle.selector.assemble import Assemble as Assemble
from srecycle.selector.base import Contest as Contest
from srecycle.selector.base import Selector as Selector
from srecycle.selector.keep import Keep as Keep
from srecycle.selector.score import Score as Score
from srecycle.selector.select import Select as Select
