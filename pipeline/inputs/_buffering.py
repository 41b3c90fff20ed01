"""The options of inputs that may have a disk buffer; `pipeline.app` puts it between them and delivery."""

from typing import Literal

from pydantic import BaseModel, Field


class Buffering(BaseModel, extra="forbid"):
    """Where records wait for the outputs."""

    buffer: Literal["memory", "disk"] = Field(
        default="memory",
        description="disk: records count as taken when they are on the disk (`buffer.db` in data_dir, fsynced), and go "
        "on from there in order; what the stages refuse is set aside, since nobody hears of it any more. memory: only "
        "when they are stored.",
    )
    buffer_bytes: int = Field(
        default=1 << 30, ge=1, description="Bytes that the disk buffer may hold; then clients wait or get 429."
    )
