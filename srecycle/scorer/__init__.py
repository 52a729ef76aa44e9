"""IFD, r-IFD and their relatives: pure maths over likelihoods. `scorer=NAME` picks how they are read."""

from srecycle.scorer.scorer import LIKELIHOODS as LIKELIHOODS
from srecycle.scorer.scorer import SCORES as SCORES
from srecycle.scorer.scorer import Scorer as Scorer
from srecycle.scorer.scorer import scores as scores
