"""Models that reflect and rewrite. `teacher=NAME` picks one."""

from srecycle.teacher.base import Rates as Rates
from srecycle.teacher.base import Reply as Reply
from srecycle.teacher.base import Request as Request
from srecycle.teacher.base import Teacher as Teacher
from srecycle.teacher.ledger import Ledger as Ledger
