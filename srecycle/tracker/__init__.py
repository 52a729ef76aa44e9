"""Where a run's figures go. `tracker=NAME` picks one; only the runner talks to it."""

from srecycle.tracker.base import NullSession as NullSession
from srecycle.tracker.base import NullTracker as NullTracker
from srecycle.tracker.base import RunInfo as RunInfo
from srecycle.tracker.base import Session as Session
from srecycle.tracker.base import Tracker as Tracker
