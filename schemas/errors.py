"""Errors that a user can mend: one root for all packages. Any other exception is a bug.

The message says what was wrong, with what value, and what to do. The cause decides a command's exit
code (infra/runtime/exit_codes.py).
"""

from enum import Enum


class Cause(Enum):
    """What has to change before another start can help."""

    SETTINGS = "settings"
    """An option or a setting."""
    VENDOR = "vendor"
    """The key: the vendor refuses it, or a feed with it."""
    CLUSTER = "cluster"
    """The broker or the registry, which does not answer."""
    OTHER = "other"
    """What the message says."""


class InfowayError(Exception):
    """What a user can mend."""

    cause = Cause.OTHER

    @property
    def lines(self) -> tuple[str, ...]:
        """The message for people: a line for each mistake, if the error has several."""
        return tuple(map(str, getattr(self, "mistakes", (self,))))


class SettingsWrong(InfowayError, ValueError):
    """An option or a setting is wrong: the same start would fail again."""

    cause = Cause.SETTINGS


class VendorRefused(InfowayError):
    """The vendor refuses the key, or a feed with it."""

    cause = Cause.VENDOR


class Unreachable(InfowayError):
    """The broker or the registry does not answer."""

    cause = Cause.CLUSTER
