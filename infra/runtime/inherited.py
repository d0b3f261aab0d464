"""The environment of processes that a command starts for its own cluster."""

import os
from collections.abc import Mapping

from schemas.clients.kafka import without


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `environment` over it, without what a child has no
    business with: the vendor's key, the address of INFOWAY_HTTP, and the credentials of another
    cluster."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("INFOWAY_API_KEY", "INFOWAY_HTTP"))
    }
    if environment.get("INFOWAY_BOOTSTRAP") != os.environ.get("INFOWAY_BOOTSTRAP"):
        ours = without(ours)  # they are another cluster's, not the embedded one's
    return ours | dict(environment)
