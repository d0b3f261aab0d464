"""Whole numbers as people write them in settings, read in one way everywhere."""


def whole_number(text: str, least: int, most: int) -> int | None:
    """Return the number that a text is in ASCII digits alone; None if it is none, or not from
    `least` to `most`."""
    # int() takes other scripts' digits, spaces and underscores, and fails for thousands of digits
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        return None
    number = int(text)
    return number if least <= number <= most else None
