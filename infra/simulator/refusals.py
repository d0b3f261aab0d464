"""How the vendor's REST says no: by its own code in the envelope, or by HTTP before its service."""

from dataclasses import dataclass


@dataclass
class Refusal(Exception):
    """An answer of the vendor's other than success."""

    ret: int
    text: str


@dataclass
class HttpError(Exception):
    """An answer of the gateway before the vendor's service: HTTP status and no envelope."""

    status: int
    text: str
