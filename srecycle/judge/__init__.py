"""Judging answers: who is asked, in which words, how replies are read, and what follows from them.

- `base`: `Case`, `Judge`, `TeacherJudge` (any teacher component), `asking`
- `replay`: `ReplayJudge`, recorded reviews
- `wording`: messages in which judged texts can't end their own markers
- `parsing`: `read_pair`, `read_grade`
- `pairs`: pairs of answers in both orders, verdicts, the paper's win rate
- `grades`, `annotations`: single answers graded; AlpacaEval's preferences
- `decorations`, `probes`: whether verdicts stand when an answer is dressed up
- `counts`: how much was judged, and why the rest was not
- `sheet`, `labels`: a blinded sheet for people, and what they made of it
- `quote`: `quoted`, what judging would cost
"""

from srecycle.judge.base import Case as Case
from srecycle.judge.base import Judge as Judge
from srecycle.judge.base import TeacherJudge as TeacherJudge
from srecycle.judge.base import asking as asking
