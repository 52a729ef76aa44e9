"""The model that selects, and is trained: pinned weights, tokenizer and prompt template. `student=NAME` picks one."""

from srecycle.student.likelihoods import Likelihoods as Likelihoods
from srecycle.student.model import Student as Student
from srecycle.student.template import PromptTemplate as PromptTemplate
from srecycle.student.template import Template as Template
