"""Which of the versions that the student took it is trained on. `keep=[NAME,...]` picks the filters."""

from srecycle.keep.base import Chosen as Chosen
from srecycle.keep.base import Keep as Keep
from srecycle.keep.base import Kept as Kept
from srecycle.keep.base import filtered as filtered
