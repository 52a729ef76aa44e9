"""The content-addressed store, its files, and `srecycle-store`, which looks after it."""

from srecycle.store.artifacts import RECORD as RECORD
from srecycle.store.artifacts import RUN as RUN
from srecycle.store.artifacts import WORK as WORK
from srecycle.store.artifacts import Artifact as Artifact
from srecycle.store.artifacts import Store as Store
from srecycle.store.files import GROUP_LINES as GROUP_LINES
from srecycle.store.files import write_json as write_json
from srecycle.store.files import write_table as write_table
from srecycle.store.reading import ByRow as ByRow
from srecycle.store.reading import LineReader as LineReader
