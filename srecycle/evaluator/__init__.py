"""Measuring the fine-tuned student. `evaluator=[NAME,...]` picks which."""

from srecycle.evaluator.base import Evaluate as Evaluate
from srecycle.evaluator.base import Evaluator as Evaluator
from srecycle.evaluator.base import Subject as Subject
