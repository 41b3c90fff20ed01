"""The models of the configuration file's own keys; those of inputs, stages and outputs are theirs."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from pipeline.address import Address
from pipeline.dead import Limits
from pipeline.log import LogOptions


class Expectation(BaseModel, extra="forbid", frozen=True):
    """One entry of `tests:`: a record, and what must become of it."""

    name: str = Field(description="What the test shows.")
    input: str | dict[str, Any] = Field(description="The record: its text, or an object that is written as JSON.")
    source: str | None = Field(default=None, description="The input whose decoder reads it; else the first one.")
    expect: dict[str, Any] | list[dict[str, Any]] = Field(
        description="Fields of the document by path, with @index and @id; null: the field is missing. A list where "
        "there are several documents, [] where the record is dropped, {'@failed': STAGE} where it is set aside."
    )


class Settings(BaseModel, extra="forbid", frozen=True):
    """The top level of the file."""

    data_dir: Path = Field(
        default=Path("/var/lib/aiologs"), description="Where positions, parked documents and dead letters are kept."
    )
    workers: int = Field(
        default_factory=lambda: min(2, os.cpu_count() or 1),
        ge=0,
        le=64,
        description="How many processes run the chain; 0: the daemon itself. By default 2, or 1 on a single core.",
    )
    admin: Address | None = Field(
        default="127.0.0.1:9600",
        description="Address and port where /healthz, /readyz, /metrics and /status answer; null: nowhere.",
    )
    host: str = Field(
        default_factory=socket.gethostname, min_length=1, description="This host's name in documents and identities."
    )
    reload: Literal["on_signal", "on_change"] = Field(
        default="on_signal",
        description="When this file is read again: on SIGHUP, or also when it has changed (it is looked at every two "
        "seconds). A configuration with a mistake changes nothing. `data_dir` can't be changed this way.",
    )
    drain_seconds: float = Field(
        default=25.0,
        gt=0,
        description="How long inputs and outputs may take to finish what is under way when the daemon stops, or an "
        "input when a reload changes it: less than systemd (90) and Kubernetes (30) grant.",
    )
    dead_letters: Limits = Field(default_factory=Limits, description="What may be kept of what was set aside.")
    log: LogOptions = Field(default_factory=LogOptions, description="What aiologs says about itself.")
    inputs: dict[str, Any] = Field(default_factory=dict, description="Where records come from, by name.")
    stages: list[Any] = Field(default_factory=list, description="What is done with every event, in this order.")
    outputs: dict[str, Any] = Field(default_factory=dict, description="Where documents go, by name: all to each.")
    tests: list[Expectation] = Field(
        default_factory=list, description="Records and what must become of them; `check` runs them."
    )
