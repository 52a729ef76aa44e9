"""What is wrong with a pair of the micro-world, by name: for studies that ask which score sees which fault."""

from srecycle.testbed.judgement import judge

SOUND = "ok"


def fault(instruction: str, response: str) -> str:
    """Return the verdict on a pair, judged from its texts alone: "ok", or the name of its fault."""
    return judge(instruction, response)
