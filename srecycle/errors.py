"""The one exception that users see as a line of text instead of a traceback."""


class UserError(ValueError):
    """Something that the user can mend. Its message says what was seen, what was expected and what to do next."""
