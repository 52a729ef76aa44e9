"""Filling `{name}` placeholders of configured wordings with untrusted text."""

import re
from collections.abc import Mapping

from pydantic import AfterValidator

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def showing(*names: str) -> AfterValidator:
    """Declare a wording that must have these placeholders: without them it would leave out what it is about."""

    def checked(wording: str) -> str:
        if missing := [name for name in names if f"{{{name}}}" not in wording]:
            raise ValueError(f"the wording should contain {{{missing[0]}}}")
        return wording

    return AfterValidator(checked)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each `{name}` of the template in one pass, so that braces inside the values stay as they are.

    Names without a value stay too: a wording may contain braces of its own.
    """
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)
