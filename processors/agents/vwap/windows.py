"""The names of VWAP windows, and what they mean; settings check them here, without an agent."""

from collections.abc import Sequence

from processors.model.intervals import span_ms
from schemas.errors import SettingsWrong

SESSION = "session"
"""The window that restarts with the market's session."""


class WindowsWrong(SettingsWrong):
    """Settings that name no windows; the message lists every mistake."""


def spans_of(windows: Sequence[str], emit_ms: int | None = None) -> dict[str, int]:
    """Return the lengths (ms) of the rolling windows among the names, in their order.

    Raises WindowsWrong, also for an `emit_ms` that is no grid.
    """
    spans = {window: span_ms(window) for window in windows if window != SESSION}
    mistakes = [
        f"{window!r}: expected 'session' or a length from 1s to 24h, as 30s, 5m or 1h"
        for window, span in spans.items()
        if not span
    ]
    if not windows or len(set(windows)) < len(windows):
        mistakes.append(f"{', '.join(windows) or 'none'}: expected at least one, each once")
    if emit_ms is not None and emit_ms <= 0:
        mistakes.append(
            f"emit_ms={emit_ms}: expected milliseconds above 0, or None for a row per trade"
        )
    if mistakes:
        raise WindowsWrong("VWAP windows: " + "; ".join(mistakes))
    return {window: span for window, span in spans.items() if span}
