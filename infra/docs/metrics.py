"""The table of a feed's metrics in docs/operations.md."""

from producers.feed.metrics import METRICS

BEGIN, END = "<!-- metrics of feeds -->\n", "<!-- end of metrics of feeds -->\n"


def updated(page: str) -> str:
    """Return the page with the table as the code has it now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}{_table()}{END}{rest.partition(END)[2]}"


def _table() -> str:
    rows = [
        f"| `infoway_feed_{metric.name}{'_total' * (metric.kind == 'counter')}` | {metric.kind} | "
        f"{metric.unit} | {metric.meaning} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | type | unit | meaning |", "|---|---|---|---|", *rows, ""])
