"""How Kafka's brokers are reached: TLS, the login, and a consumer with the options of the input."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, SecretStr

from pipeline.contract import Unusable

if TYPE_CHECKING:
    from pipeline.inputs.kafka import Kafka


class Sasl(BaseModel, extra="forbid", frozen=True):
    """How to log in to the brokers."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(description="The mechanism.")
    username: str = Field(description="The user.")
    password: SecretStr = Field(description="The password.")


class ClientTLS(BaseModel, extra="forbid", frozen=True):
    """How to trust the brokers, and to be known by them."""

    ca: Path | None = Field(default=None, description="PEM file of the authorities to trust; null: the system's.")
    certificate: Path | None = Field(default=None, description="PEM file of this client's certificate.")
    key: Path | None = Field(default=None, description="PEM file of its private key.")
    check_hostname: bool = Field(default=True, description="Whether a broker's certificate must name its host.")

    def context(self) -> ssl.SSLContext:
        """The context; raises `Unusable` where a file can't be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.check_hostname = self.check_hostname
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise Unusable(f"TLS: {self.ca or self.certificate}: {error}") from error
        return context


def consumer(options: Kafka.Options, host: str) -> Any:
    """A consumer that is not started yet; raises `Unusable` where TLS can't be spoken as configured."""
    from aiokafka import AIOKafkaConsumer  # noqa: PLC0415 - see run
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor  # noqa: PLC0415

    class Sticky(StickyPartitionAssignor):  # type: ignore[misc]
        """What it remembers is kept in the class: every consumer needs one of its own."""

    sasl = options.sasl
    protocol = ("SASL_" if sasl else "") + ("SSL" if options.tls else "PLAINTEXT")
    login = (
        {
            "sasl_mechanism": sasl.mechanism,
            "sasl_plain_username": sasl.username,
            "sasl_plain_password": sasl.password.get_secret_value(),
        }
        if sasl
        else {}
    )
    return AIOKafkaConsumer(
        bootstrap_servers=options.brokers,
        client_id=f"aiologs-{host}",
        group_id=options.group,
        enable_auto_commit=False,
        auto_offset_reset="latest" if options.start == "latest" else "earliest",
        partition_assignment_strategy=(Sticky,),
        session_timeout_ms=round(options.session_seconds * 1000),
        heartbeat_interval_ms=round(options.session_seconds * 1000 / 6),
        rebalance_timeout_ms=round(max(options.revoke_seconds * 2, 60) * 1000),
        # Records wait for room as long as an output is away; that must not look as if this daemon hung.
        max_poll_interval_ms=24 * 3600 * 1000,
        security_protocol=protocol,
        ssl_context=options.tls.context() if options.tls else None,
        **login,
    )
