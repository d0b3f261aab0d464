"""The schema registry's API (Confluent's, as Apicurio serves it under /apis/ccompat/v7): register, look up, read back."""

import json
from collections.abc import Generator
from typing import Any

import httpx

from schemas.security import Security, security_of_registry
from schemas.wire import Schema

COMPATIBILITY = "FULL_TRANSITIVE"
_ABSENT = frozenset((40401, 40403, 40408))
"""The API's codes for a subject, a schema and a subject's level that are not there; a wrong address answers 404 without one."""


class RegistryError(RuntimeError):
    """The registry is out of reach, or refused a schema."""


class UnknownSchema(RegistryError):
    """The registry answers, and knows no schema of this id, or not under this subject."""


class Registry:
    """A client of one registry."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._schemas: dict[int, Schema] = {}
        # trust_env off: a proxy of the environment must not stand before a registry on loopback
        security = security_of_registry(self.url)
        verify = (
            security.tls() if self.url.startswith("https:") else False
        )  # the system's certificates take 0.1 s to read
        self._http = httpx.Client(
            base_url=self.url,
            timeout=timeout,
            trust_env=not _is_local(url),
            auth=_auth(security),
            verify=verify,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def register(self, subject: str, schema: Schema) -> int:
        """Set the subject's compatibility to FULL_TRANSITIVE, register the schema and return its id.

        Raises RegistryError where the schema is incompatible with one before it.
        """
        self.set_compatibility(subject)
        try:
            return int(self._call("POST", f"/subjects/{subject}/versions", _body(schema))["id"])
        except RegistryError:
            # two that register the same at once: Apicurio may refuse one of them
            schema_id = self.id_of(subject, schema)
            if schema_id is None:
                raise
            return schema_id

    def set_compatibility(self, subject: str) -> None:
        """Set the subject's compatibility to FULL_TRANSITIVE."""
        try:
            self._call("PUT", f"/config/{subject}", {"compatibility": COMPATIBILITY})
        except RegistryError:
            # two that set it at once, likewise
            if self.compatibility(subject) != COMPATIBILITY:
                raise

    def id_of(self, subject: str, schema: Schema) -> int | None:
        """Return the id of a schema that is registered under the subject, None where it is not; registers nothing."""
        try:
            return int(self._call("POST", f"/subjects/{subject}", _body(schema))["id"])
        except UnknownSchema:
            return None

    def latest_version(self, subject: str) -> int | None:
        """Return the number of the subject's newest version, None where there is no subject."""
        try:
            return max(map(int, self._call("GET", f"/subjects/{subject}/versions", None)))
        except UnknownSchema:
            return None

    def compatibility(self, subject: str) -> str | None:
        """Return the subject's own compatibility level, None where it has none."""
        try:
            return str(self._call("GET", f"/config/{subject}", None)["compatibilityLevel"])
        except UnknownSchema:
            return None

    def refusal(self, subject: str, schema: Schema) -> str | None:
        """Return why the subject's compatibility level forbids the schema, as far as the registry says; None where it may be registered."""
        answer = self._call(
            "POST", f"/compatibility/subjects/{subject}/versions?verbose=true", _body(schema)
        )
        return (
            None
            if answer["is_compatible"]
            else " ".join(answer.get("messages") or ("incompatible with an earlier version",))
        )

    def schema(self, schema_id: int) -> Schema:
        """Return the schema of an id; raises UnknownSchema where the registry does not know it."""
        # an id never changes its meaning: the readers of all topics of a worker ask once for what they share
        if schema_id not in self._schemas:
            self._schemas[schema_id] = json.loads(
                self._call("GET", f"/schemas/ids/{schema_id}", None)["schema"]
            )
        return self._schemas[schema_id]

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise RegistryError(
                f"no answer from the schema registry at {self.url} ({error}): is it running, and is the address right?"
            ) from error
        said = " ".join(response.text.split())[:300]
        if response.status_code == httpx.codes.CONFLICT:
            raise RegistryError(
                f"the schema registry refused {path}: incompatible with the subject's earlier schemas: {said}"
            )
        if response.status_code == httpx.codes.NOT_FOUND and _error_code(response) in _ABSENT:
            raise UnknownSchema(
                f"the schema registry at {self.url} knows no {path.removeprefix('/')}"
            )
        if response.status_code == httpx.codes.NOT_FOUND and _error_code(response) is None:
            raise self._elsewhere(response, method, path)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise RegistryError(
                f"the schema registry answered {response.status_code} to {method} {path}: {said}: "
                "check INFOWAY_REGISTRY_USERNAME and _PASSWORD, or INFOWAY_REGISTRY_TOKEN, and what they are allowed"
            )
        if response.is_error:
            raise RegistryError(
                f"the schema registry answered {response.status_code} to {method} {path}: {said}"
            )
        try:
            return response.json()
        except ValueError as error:
            raise self._elsewhere(response, method, path) from error

    def _elsewhere(self, response: httpx.Response, method: str, path: str) -> RegistryError:
        return RegistryError(
            f"no schema registry's API at {self.url} ({response.status_code} to {method} {path}): give its whole address, "
            "of Apicurio http://HOST:PORT/apis/ccompat/v7"
        )


def _auth(security: Security) -> httpx.Auth | None:
    if security.registry_token:
        return _Bearer(security.registry_token)
    return (
        httpx.BasicAuth(security.registry_username, security.registry_password)
        if security.registry_username
        else None
    )


class _Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def _body(schema: Schema) -> dict[str, Any]:
    return {"schema": json.dumps(schema)}


def _error_code(response: httpx.Response) -> object:
    try:
        answer = response.json()
    except ValueError:
        return None  # not the registry's API
    return answer.get("error_code") if isinstance(answer, dict) else None


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
