"""The micro-world: an offline test bed with known truth for the whole chain.

world (lists, operations, tasks) <- wording (tasks into words and back) <- judgement (a pair's verdict from its texts)
<- originals (flawed starting data), script (the scripted teacher), heldout (tests for lm-eval), curriculum and pretrain
(the tiny base students shipped in bases/).
"""
