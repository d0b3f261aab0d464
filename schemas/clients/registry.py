"""The schema registry's API (Confluent's, as Apicurio serves it under /apis/ccompat/v7): register,
look up, read back."""

import json
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import orjson

from schemas.clients.kafka import Security, security_of_registry
from schemas.errors import Cause, Unreachable
from schemas.foreign.types import UnreadableSchema, from_text
from schemas.printable import printable
from schemas.wire import Schema

Answer = TypeVar("Answer")

COMPATIBILITY = "FULL_TRANSITIVE"
MOST_BYTES = 1 << 20
"""Of an answer: a schema of ours takes 4 KB, and a list of versions or of reasons little more."""
MOST_SCHEMAS = 1_000
"""Schemas that are remembered; a namespace has some twenty."""
_ABSENT = frozenset((40401, 40403, 40408))
"""The API's codes for a subject, a schema and a subject's level that are not there; a wrong address
answers 404 without one."""


class RegistryError(Unreachable):
    """The registry is out of reach, or refused a schema."""


class RegistryRefused(RegistryError):
    """The registry refuses this client's credentials, or what it asks for with them."""

    cause = Cause.OTHER


class UnknownSchema(RegistryError):
    """The registry answers, and knows no schema of this id, or not under this subject."""


class NotInTime(RegistryError):
    """An answer that is not whole within the time that a call has."""


class TooLarge(RegistryError):
    """A success with more bytes than any schema within our bounds, or any other answer, can
    have."""


class Registry:
    """A client of one registry."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        """`timeout` is that of a whole call, in seconds."""
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._schemas: dict[int, object] = {}
        self._http = self._client()

    def _client(self) -> httpx.Client:
        security = security_of_registry(self.url)
        verify = (
            security.tls() if self.url.startswith("https:") else False
        )  # the system's certificates take 0.1 s to read
        return httpx.Client(
            base_url=self.url,
            timeout=self._timeout,
            # a proxy of the environment must not stand before a registry on loopback
            trust_env=not _is_local(self.url),
            auth=_auth(security),
            verify=verify,
            # what is small when it is packed may be gigabytes when it is not
            headers={"Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def register(self, subject: str, schema: Schema) -> int:
        """Set the subject's compatibility to FULL_TRANSITIVE, register the schema and return its
        id.

        Raises RegistryError where the schema is incompatible with one before it.
        """
        self.set_compatibility(subject)
        try:
            return self._call(
                "POST", f"/subjects/{_quoted(subject)}/versions", _body(schema), _id_in
            )
        except RegistryError:
            # two that register the same at once: Apicurio may refuse one of them
            schema_id = self.id_of(subject, schema)
            if schema_id is None:
                raise
            return schema_id

    def set_compatibility(self, subject: str) -> None:
        """Set the subject's compatibility to FULL_TRANSITIVE."""
        try:
            self._call(
                "PUT", f"/config/{_quoted(subject)}", {"compatibility": COMPATIBILITY}, _anything
            )
        except RegistryError:
            # two that set it at once, likewise
            if self.compatibility(subject) != COMPATIBILITY:
                raise

    def id_of(self, subject: str, schema: Schema) -> int | None:
        """Return the id of a schema that is registered under the subject, None where it is not;
        registers nothing."""
        try:
            return self._call("POST", f"/subjects/{_quoted(subject)}", _body(schema), _id_in)
        except UnknownSchema:
            return None

    def latest_version(self, subject: str) -> int | None:
        """Return the number of the subject's newest version, None where there is no subject."""
        try:
            return self._call(
                "GET",
                f"/subjects/{_quoted(subject)}/versions",
                None,
                lambda answer: max(map(int, answer)),
            )
        except UnknownSchema:
            return None

    def compatibility(self, subject: str) -> str | None:
        """Return the subject's own compatibility level, None where it has none."""
        try:
            return self._call(
                "GET",
                f"/config/{_quoted(subject)}",
                None,
                lambda answer: str(answer["compatibilityLevel"]),
            )
        except UnknownSchema:
            return None

    def refusal(self, subject: str, schema: Schema) -> str | None:
        """Return why the subject's compatibility level forbids the schema, as far as the registry
        says; None where it may be registered."""
        path = f"/compatibility/subjects/{_quoted(subject)}/versions?verbose=true"
        return self._call("POST", path, _body(schema), _refusal_in)

    def schema(self, schema_id: int) -> object:
        """Return the schema of an id as JSON: whatever the registry says that it is, which
        `schemas.foreign.types` parses.

        Raises UnknownSchema where the registry does not know the id, UnreadableSchema and
        RegistryError.
        """
        # an id never changes its meaning: the readers of all topics of a worker ask once for what
        # they share
        if schema_id not in self._schemas:
            try:
                found = from_text(self._call("GET", f"/schemas/ids/{schema_id}", None, _schema_in))
            except TooLarge as error:
                raise UnreadableSchema(
                    str(error)
                ) from error  # whoever may register could stop a partition otherwise
            if len(self._schemas) >= MOST_SCHEMAS:
                self._schemas.clear()
            self._schemas[schema_id] = found
        return self._schemas[schema_id]

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[Any], Answer]
    ) -> Answer:
        try:
            status, content = self._answer(method, path, body)
        except NotInTime:
            if body is None:
                raise
            # Apicurio on a busy machine has left a request with a body without an answer for good,
            # and answered others meanwhile; each of ours may be made twice
            status, content = self._answer(method, path, body)
        said = printable(" ".join(content[:1000].decode(errors="replace").split())[:300])
        answer = _json(content)
        if status == httpx.codes.CONFLICT:
            raise RegistryError(
                f"the schema registry refused {path}: incompatible with the subject's earlier "
                f"schemas: {said}"
            )
        if status == httpx.codes.NOT_FOUND and _error_code(answer) in _ABSENT:
            raise UnknownSchema(
                f"the schema registry at {self.url} knows no {path.removeprefix('/')}"
            )
        if status == httpx.codes.NOT_FOUND and _error_code(answer) is None:
            raise self._elsewhere(status, method, path)
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise RegistryRefused(
                f"the schema registry answered {status} to {method} {path}: {said}: "
                "check INFOWAY_REGISTRY_USERNAME and _PASSWORD, or INFOWAY_REGISTRY_TOKEN, and "
                "what they are allowed"
            )
        if status >= 400:
            raise RegistryError(f"the schema registry answered {status} to {method} {path}: {said}")
        if answer is None or status >= 300:
            raise self._elsewhere(status, method, path)
        try:
            return read(answer)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RegistryError(
                f"the schema registry at {self.url} answered {method} {path} with {said}, which "
                "its API does not: "
                "does INFOWAY_REGISTRY name a registry?"
            ) from error

    def _answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """Return the status and the body of an answer: no larger than MOST_BYTES, and whole within
        the timeout."""
        client, give_up = self._http, time.monotonic() + self._timeout
        # httpx bounds each read, not their sum: an answer that dribbles would have no end
        watchdog = threading.Timer(self._timeout, client.close)
        watchdog.daemon = True
        watchdog.start()
        try:
            with client.stream(method, path, json=body) as response:
                if "Content-Encoding" in response.headers:
                    raise RegistryError(
                        f"the schema registry at {self.url} packs its answers, which it was "
                        "asked not to"
                    )
                content = bytearray()
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > MOST_BYTES:
                        kind = TooLarge if response.status_code == httpx.codes.OK else RegistryError
                        raise kind(
                            f"the schema registry at {self.url} answered {method} {path} with "
                            f"more than {MOST_BYTES} bytes"
                        )
                return response.status_code, bytes(content)
        except (httpx.HTTPError, httpx.StreamError, OSError, RuntimeError) as error:
            in_time = time.monotonic() < give_up
            why = printable(str(error))
            if not in_time:
                why = f"the answer is not whole after {self._timeout:.0f} s"
            kind = RegistryError if in_time else NotInTime
            raise kind(
                f"no answer from the schema registry at {self.url} ({why}): is it running, and "
                "is the address right?"
            ) from error
        finally:
            watchdog.cancel()
            if client.is_closed:
                self._http = self._client()

    def _elsewhere(self, status: int, method: str, path: str) -> RegistryError:
        return RegistryError(
            f"no schema registry's API at {self.url} ({status} to {method} {path}): give its "
            "whole address, "
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


def _quoted(subject: str) -> str:
    return quote(subject, safe="")


def _json(content: bytes) -> Any:
    """Return an answer's JSON, None where it is none; orjson refuses what is nested without end."""
    try:
        return orjson.loads(content)
    except ValueError:
        return None


def _error_code(answer: object) -> int | None:
    code = answer.get("error_code") if isinstance(answer, dict) else None
    return code if type(code) is int else None


def _id_in(answer: Any) -> int:
    return int(answer["id"])


def _schema_in(answer: Any) -> object:
    return answer["schema"]


def _refusal_in(answer: Any) -> str | None:
    return (
        None
        if answer["is_compatible"]
        else " ".join(answer.get("messages") or ("incompatible with an earlier version",))
    )


def _anything(answer: Any) -> Any:
    return answer


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
