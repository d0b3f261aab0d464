"""Whether another live worker has this worker's slot: the broker's abort of a transaction by
timeout reads the same as fencing by a second producer of the same transactional id.

The slot stands in the `client.id` of the membership, beside a token of the process.
"""

import logging
import time
import uuid

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.clients.kafka import client

log = logging.getLogger(__name__)

LISTED = 8.0
"""Seconds after which a member that has died is no longer listed: the session timeout, and some."""
_PROCESS = uuid.uuid4().hex[:8]
_ANSWER_TIMEOUT = 5.0
_LONGEST = 3 * LISTED


def client_id(transactional_id: str) -> str:
    """Return the membership's client.id: the slot, and which process this is."""
    return f"{transactional_id}@{_PROCESS}"


def other_holder(bootstrap: str, group: str, transactional_id: str, patience: float) -> str | None:
    """Return the client.id and the host of a live member of the group that has this slot too.

    A member counts as live once it was listed for longer than a dead one is. For `patience` seconds
    one is waited for: who takes a slot over joins the group a moment after it has fenced us.
    None, too, if the broker does not answer.
    """
    admin = AdminClient({**client(bootstrap), "log_level": 0})
    began = time.monotonic()
    listed_since: float | None = None
    while True:
        other = _listed(admin, group, transactional_id)
        now = time.monotonic()
        if other is None:
            listed_since = None
            if now - began >= patience:
                return None
        else:
            listed_since = listed_since or now
            if now - listed_since >= LISTED:
                return other
        if now - began > _LONGEST:
            return None
        time.sleep(0.25)


def _listed(admin: AdminClient, group: str, transactional_id: str) -> str | None:
    try:
        asked = admin.describe_consumer_groups([group], request_timeout=_ANSWER_TIMEOUT)[group]
        described = asked.result(_ANSWER_TIMEOUT + 1)
    except (KafkaException, TimeoutError) as error:
        log.warning("group %s: its members cannot be had: %s", group, error)
        return None
    for member in described.members:
        slot, _, process = member.client_id.rpartition("@")
        if slot == transactional_id and process != _PROCESS:
            return f"{member.client_id} on {member.host}"
    return None
