"""docs/configuration.md: every setting, from the variables that the code names."""

from collections.abc import Mapping
from textwrap import fill

from infra.page.access import VARIABLES as PAGE
from infra.topology.wanted import VARIABLES as TOPOLOGY
from processors.settings import VARIABLES as PROCESSORS
from schemas.clients.kafka import VARIABLES as SECURITY

NOTICE = "<!-- made by `make docs` from the settings in the code: change it there -->"

FEED = {
    "INFOWAY_API_KEY": "the vendor's API key; without it `up` shows simulated markets",
    "INFOWAY_API_KEY_FILE": "file with the key alone, if INFOWAY_API_KEY is not set",
    "INFOWAY_SILENCE_S": "seconds of market hours without data after which a symbol is reported; "
    "default 300",
    "INFOWAY_SPOOL": "folder of the spool; default data/spool, of `up` data/SOURCE/spool",
    "INFOWAY_SPOOL_MIB": "bound of the spool in MiB; default 1024",
    "HTTPS_PROXY": "http://HOST:PORT of an HTTP proxy for the vendor's WebSocket and REST",
    "NO_PROXY": "hosts that are reached without the proxy",
}
PROCESS = {
    "INFOWAY_HTTP": "host:port at which `up`, `produce` and `worker` serve /livez, /readyz and "
    "/metrics; default none",
    "INFOWAY_CACHE": "folder of the downloaded Kafka and registry; default "
    "~/.cache/infoway-streams",
}
_CLUSTER = ("INFOWAY_BOOTSTRAP", "INFOWAY_REGISTRY", "INFOWAY_PREFIX")
_ALSO_PRODUCERS = ("INFOWAY_SESSIONS", "INFOWAY_SWAP_SIDES")

SECTIONS: dict[str, tuple[str, Mapping[str, str]]] = {
    "Cluster": (
        "Where everything runs. Set both addresses, or neither. Without them `up` and `replay` "
        "start an embedded stack; the other commands use the one that runs over `--data` "
        "(default `data`), and end with code 2 if none does.",
        {name: PROCESSORS[name] for name in _CLUSTER},
    ),
    "Feed": ("For `up`, `produce`, `record`, `backfill` and `plan-subscriptions`.", FEED),
    "Feed and processors": (
        "Give producers and workers the same.",
        {name: PROCESSORS[name] for name in _ALSO_PRODUCERS},
    ),
    "Processors": (
        "For `worker`, and for the workers that `up` and `replay` start.",
        {
            name: text
            for name, text in PROCESSORS.items()
            if name not in (*_CLUSTER, *_ALSO_PRODUCERS)
        },
    ),
    "Topics": ("For `topology`, `up` and `replay`.", TOPOLOGY),
    "TLS and SASL": (
        "For the brokers of INFOWAY_BOOTSTRAP and the registry of INFOWAY_REGISTRY, and for no "
        "embedded one.",
        SECURITY,
    ),
    "Live page": ("For `dashboard`, and for the page that `up` starts.", PAGE),
    "Process": ("For whoever runs the programs.", PROCESS),
}

_INTRODUCTION = """\
# Configuration

Settings are environment variables. Every command checks its options and settings before it starts
anything. It shows all mistakes at once, a line each, and ends with code 2. Processes read settings
once, at their start.

Numbers are plain ASCII digits: `1e3` and `1_000` are mistakes.

These have an option too, and the option overrules the setting: `--prefix`, `--intervals`,
`--windows`, `--activity`, `--partitions`. `infoway-streams COMMAND --help` lists the options.
"""


def page() -> str:
    """Return the text of docs/configuration.md."""
    parts = [NOTICE, "", _INTRODUCTION]
    for title, (introduction, variables) in SECTIONS.items():
        parts += [
            f"## {title}",
            "",
            fill(introduction, 100),
            "",
            "| setting | what it does |",
            "|---|---|",
        ]
        parts += [f"| `{name}` | {_cell(text)} |" for name, text in variables.items()]
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
