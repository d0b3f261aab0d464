"""The schema registry's API (Confluent's, as Apicurio serves it under /apis/ccompat/v7): register, look up, read back."""

import json
from typing import Any, cast

import httpx

from schemas.wire import Schema

COMPATIBILITY = "FULL_TRANSITIVE"


class RegistryError(RuntimeError):
    """The registry is out of reach, or refused a schema."""


class UnknownSchema(RegistryError):
    """The registry answers, and knows no schema of this id."""


class Registry:
    """A client of one registry."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._schemas: dict[int, Schema] = {}
        # trust_env off: a proxy of the environment must not stand before a registry on loopback
        self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=not _is_local(url))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def register(self, subject: str, schema: Schema) -> int:
        """Set the subject's compatibility to FULL_TRANSITIVE, register the schema and return its id.

        Raises RegistryError where the schema is incompatible with one before it.
        """
        self._call("PUT", f"/config/{subject}", {"compatibility": COMPATIBILITY})
        answer = self._call("POST", f"/subjects/{subject}/versions", {"schema": json.dumps(schema)})
        return int(answer["id"])

    def id_of(self, subject: str, schema: Schema) -> int:
        """Return the id of a registered schema; raises RegistryError where the subject does not have it."""
        answer = self._call("POST", f"/subjects/{subject}", {"schema": json.dumps(schema)})
        return int(answer["id"])

    def schema(self, schema_id: int) -> Schema:
        """Return the schema of an id; raises UnknownSchema where the registry does not know it."""
        # an id never changes its meaning: the readers of all topics of a worker ask once for what they share
        if schema_id not in self._schemas:
            self._schemas[schema_id] = json.loads(self._call("GET", f"/schemas/ids/{schema_id}", None)["schema"])
        return self._schemas[schema_id]

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise RegistryError(
                f"no answer from the schema registry at {self.url} ({error}): is it running, and is the address right?"
            ) from error
        if response.status_code == httpx.codes.CONFLICT:
            raise RegistryError(
                f"the schema registry refused {path}: incompatible with the subject's earlier schemas: {response.text[:300]}"
            )
        if response.status_code == httpx.codes.NOT_FOUND and path.startswith("/schemas/"):
            raise UnknownSchema(f"the schema registry at {self.url} knows no {path.removeprefix('/')}")
        if response.is_error:
            raise RegistryError(f"the schema registry answered {response.status_code} to {method} {path}: {response.text[:300]}")
        return cast(dict[str, Any], response.json())


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
