"""What tests ask a teacher."""

from srecycle.teacher import Request


def requests(*texts: str, sample: int = 0) -> list[Request]:
    """Return a request a text, each of a row of that name."""
    return [
        Request(
            row_id=text,
            position=place,
            phase="response",
            base="original",
            instruction=text,
            response="",
            messages=[{"role": "user", "content": text}],
            sample=sample,
        )
        for place, text in enumerate(texts)
    ]
