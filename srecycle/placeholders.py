"""Filling `{name}` placeholders of configured wordings with untrusted text."""

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each `{name}` of the template in one pass, so that braces inside the values stay as they are.

    Names without a value stay too: a wording may contain braces of its own.
    """
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)
