"""Fine-tuning the student on what it took. `trainer=NAME` picks how."""

from srecycle.trainer.base import NoTrainer as NoTrainer
from srecycle.trainer.base import Train as Train
from srecycle.trainer.base import Trainer as Trainer
