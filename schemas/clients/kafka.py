"""TLS, SASL and the registry's credentials, from the environment: for every client of the cluster
that it names, and of no other.

An embedded broker or registry beside them is asked without: `INFOWAY_BOOTSTRAP` and
`INFOWAY_REGISTRY` say whose these settings are.
"""

import logging
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError

from schemas.errors import SettingsWrong

_log = logging.getLogger(__name__)
_HANDSHAKE = re.compile("security.protocol|SSL handshake|SASL")
"""In the text of a broker that is merely out of reach, by its code."""
_CREDENTIALS = frozenset((KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED))

_NO_ANSWER = re.compile("transport failure|disconnect|timed out", re.IGNORECASE)
"""In the text of an authentication that was broken off, not refused."""

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

VARIABLES = {
    "INFOWAY_SECURITY_PROTOCOL": f"of the brokers: {', '.join(PROTOCOLS)}; default PLAINTEXT",
    "INFOWAY_SASL_MECHANISM": f"{', '.join(MECHANISMS)}; default SCRAM-SHA-512",
    "INFOWAY_SASL_USERNAME": "the Kafka user",
    "INFOWAY_SASL_PASSWORD": "the Kafka user's password, or INFOWAY_SASL_PASSWORD_FILE, a file "
    "with it alone",
    "INFOWAY_TLS_CA": "file (PEM) of the authorities that brokers and registry are verified by; "
    "default the system's",
    "INFOWAY_REGISTRY_USERNAME": "the registry's user (basic authentication)",
    "INFOWAY_REGISTRY_PASSWORD": "that user's password, or INFOWAY_REGISTRY_PASSWORD_FILE",
    "INFOWAY_REGISTRY_TOKEN": "a bearer token for the registry instead, or "
    "INFOWAY_REGISTRY_TOKEN_FILE",
}
"""Every variable; those of a secret may end in _FILE."""


class SecurityError(SettingsWrong):
    """The settings of TLS and SASL are wrong; the message lists every mistake, and no secret."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Security:
    """What a client shows and demands. Secrets are not in its repr."""

    protocol: str = "PLAINTEXT"
    mechanism: str = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)
    authorities: str = ""
    """Path of a PEM file, empty for the system's."""
    registry_username: str = ""
    registry_password: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Security":
        """Read the variables of VARIABLES; raises SecurityError."""
        mistakes: list[str] = []
        found = cls(
            protocol=_one_of(
                PROTOCOLS, "INFOWAY_SECURITY_PROTOCOL", environment, "PLAINTEXT", mistakes
            ),
            mechanism=_one_of(
                MECHANISMS, "INFOWAY_SASL_MECHANISM", environment, "SCRAM-SHA-512", mistakes
            ),
            username=environment.get("INFOWAY_SASL_USERNAME", ""),
            password=_secret("INFOWAY_SASL_PASSWORD", environment, mistakes),
            authorities=environment.get("INFOWAY_TLS_CA", ""),
            registry_username=environment.get("INFOWAY_REGISTRY_USERNAME", ""),
            registry_password=_secret("INFOWAY_REGISTRY_PASSWORD", environment, mistakes),
            registry_token=_secret("INFOWAY_REGISTRY_TOKEN", environment, mistakes),
        )
        if found.protocol.startswith("SASL_"):
            mistakes += [
                f"{name} is not set, and INFOWAY_SECURITY_PROTOCOL is {found.protocol}"
                for name, value in (
                    ("INFOWAY_SASL_USERNAME", found.username),
                    ("INFOWAY_SASL_PASSWORD", found.password),
                )
                if not value and not any(name in mistake for mistake in mistakes)
            ]
        elif found.password:
            mistakes.append(
                f"INFOWAY_SASL_PASSWORD is set, and INFOWAY_SECURITY_PROTOCOL={found.protocol} "
                "would not use it: set SASL_SSL"
            )
        if found.registry_token and found.registry_username:
            mistakes.append(
                "both INFOWAY_REGISTRY_TOKEN and INFOWAY_REGISTRY_USERNAME are set: choose one"
            )
        if found.authorities:
            try:
                found.tls()
            except OSError as error:  # what ssl raises is one
                mistakes.append(
                    f"INFOWAY_TLS_CA={found.authorities}: no certificates (PEM) can be read "
                    f"from it: {error}"
                )
        if mistakes:
            raise SecurityError(*mistakes)
        return found

    def kafka(self) -> dict[str, Any]:
        """Return librdkafka's settings."""
        if self.protocol == "PLAINTEXT":
            return {}
        settings = {"security.protocol": self.protocol}
        if self.protocol.startswith("SASL_"):
            settings |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password,
            }
        if self.authorities and self.protocol.endswith("SSL"):
            settings["ssl.ca.location"] = self.authorities
        return settings

    def tls(self) -> ssl.SSLContext:
        """Return the context that verifies the server's certificate and its name."""
        return ssl.create_default_context(cafile=self.authorities or None)


def security_of(bootstrap: str, environment: Mapping[str, str] = os.environ) -> Security:
    """Return the settings for these brokers: none where the environment names others. Raises
    SecurityError."""
    return (
        Security.from_environment(environment)
        if environment.get("INFOWAY_BOOTSTRAP") == bootstrap
        else Security()
    )


def security_of_registry(url: str, environment: Mapping[str, str] = os.environ) -> Security:
    """Return the settings for this registry: none where the environment names another. Raises
    SecurityError."""
    return (
        Security.from_environment(environment)
        if environment.get("INFOWAY_REGISTRY", "").rstrip("/") == url.rstrip("/")
        else Security()
    )


def client(bootstrap: str) -> dict[str, Any]:
    """Return where every client of Kafka begins: the brokers' addresses, and what security they ask
    for. Raises SecurityError."""
    return {
        "bootstrap.servers": bootstrap,
        "error_cb": _refusals(),
        **security_of(bootstrap).kafka(),
    }


def credentials_refused() -> str | None:
    """Return how brokers refused this process's credentials since the last call, and what to do.

    Calls themselves only time out, as they do if no broker is there.
    """
    found, _refused[:] = _refused[-1:], []
    return found[0] if found else None


_refused: list[str] = []


def _refusals() -> Callable[[KafkaError], None]:
    """Return what logs, once each, why brokers let a client in no further: calls themselves only
    time out."""
    told: set[str] = set()

    def tell(error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or _HANDSHAKE.search(
            error.str()
        ):
            text = re.sub(r" \(after .*", "", error.str())
            if error.code() in _CREDENTIALS and not _NO_ANSWER.search(text):
                _refused[:] = [
                    f"the broker refuses the credentials: {text}: check INFOWAY_SASL_USERNAME, "
                    "INFOWAY_SASL_PASSWORD (or its _FILE) and INFOWAY_SASL_MECHANISM"
                ]
            if text not in told:
                told.add(text)
                _log.error(
                    "a broker refuses this client: %s: see INFOWAY_SECURITY_PROTOCOL, "
                    "INFOWAY_SASL_USERNAME, INFOWAY_TLS_CA",
                    text,
                )

    return tell


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without these settings: for processes that work on other brokers."""
    return {
        name: value
        for name, value in environment.items()
        if name.removesuffix("_FILE") not in VARIABLES
    }


def _one_of(
    values: tuple[str, ...],
    name: str,
    environment: Mapping[str, str],
    default: str,
    mistakes: list[str],
) -> str:
    value = environment.get(name) or default
    if value not in values:
        mistakes.append(f"{name}={value!r}: one of {', '.join(values)}")
        return default
    return value


def _secret(name: str, environment: Mapping[str, str], mistakes: list[str]) -> str:
    path = environment.get(f"{name}_FILE")
    if environment.get(name) or not path:
        return environment.get(name, "")
    try:
        return Path(path).read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        mistakes.append(
            f"{name}_FILE={path}: {getattr(error, 'strerror', None) or 'no text'}: name a file "
            "with the secret alone"
        )
        return ""
