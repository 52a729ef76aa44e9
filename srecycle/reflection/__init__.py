"""What the teacher is asked, and what is read out of its replies."""

from srecycle.reflection.prompts import Reflection as Reflection
from srecycle.reflection.reflect import Reflect as Reflect
