"""How an output shows who it is to Elasticsearch and knows whom it talks to: TLS context and headers."""

from __future__ import annotations

import logging
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING

from pipeline import __version__
from pipeline.contract import Unusable

if TYPE_CHECKING:
    from pipeline.outputs.elasticsearch import Elasticsearch

log = logging.getLogger("aiologs.output")


def tls(options: Elasticsearch.Options, name: str) -> ssl.SSLContext | None:
    """The context for https, None where all is http; raises `Unusable` where a file that is named does not do."""
    if not any(host.lower().startswith("https:") for host in options.hosts) and not (options.ca or options.certificate):
        return None  # to load the authorities of the operating system takes 20 ms
    try:
        context = ssl.create_default_context(cafile=options.ca)
        if options.certificate:
            context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (options.ca, options.certificate, options.key) if path)
        raise Unusable(f"output {name}: can't use {files}: {error}") from error
    if not options.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        log.warning("output %s: verify is off, so anybody may pose as the server", name)
    return context


def headers(options: Elasticsearch.Options) -> dict[str, str]:
    """Name and credentials, as they go with each request."""
    made = {"user-agent": f"aiologs/{__version__}"}
    if options.api_key:
        made["authorization"] = f"ApiKey {options.api_key.get_secret_value()}"
    elif options.username and options.password:
        made["authorization"] = f"Basic {base64(f'{options.username}:{options.password.get_secret_value()}')}"
    return made


def base64(text: str) -> str:
    """A text in base64."""
    return b64encode(text.encode()).decode()
