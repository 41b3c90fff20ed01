"""TLS options, and contexts that follow their files. Certificates are made by the openssl command."""

import shutil
import ssl
import subprocess

import pytest
from pydantic import ValidationError

from pipeline.contract import Unusable
from pipeline.tls import TLS

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="the openssl command makes the certificates")


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make(folder, name):
    """A self-signed certificate of that name and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    openssl(
        *["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
        *["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-out", certificate, "-keyout", key],
    )
    return certificate, key


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return {name: make(folder, name) for name in ("first", "second", "client", "stranger")}


@pytest.fixture
def files(tmp_path, made):
    """A certificate and a key that a test may replace."""
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    install(made["first"], certificate, key)
    return certificate, key


def install(pair, certificate, key):
    # By another file under the same name, as programs that renew certificates do.
    for source, target in zip(pair, (certificate, key), strict=True):
        shutil.copy(source, target.with_suffix(".new"))
        target.with_suffix(".new").rename(target)


def shake(context, server_name="first", certificate=None, **settings):
    """Let a client and a server with this context shake hands; returns the name in the server's certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    for name, value in settings.items():
        setattr(client, name, value)
    if certificate:
        client.load_cert_chain(*certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=server_name)
    for side in (theirs, ours) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    ours.do_handshake()
    der = theirs.getpeercert(binary_form=True) or b""
    return next(name for name in (b"first", b"second") if name in der).decode()


def test_a_client_reaches_the_server(files):
    assert shake(TLS(certificate=files[0], key=files[1]).context()) == "first"


def test_the_key_may_stand_beside_the_certificate(files):
    certificate, key = files
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert shake(TLS(certificate=certificate).context()) == "first"


@pytest.mark.parametrize("server_name", ["first", None])
def test_a_renewed_certificate_is_used_from_the_next_handshake_on(files, made, server_name, caplog):
    caplog.set_level("INFO")
    context = TLS(certificate=files[0], key=files[1]).context()
    install(made["second"], *files)
    assert shake(context, server_name) == "second"
    assert "reloaded" in caplog.text
    install(made["first"], *files)
    assert shake(context, server_name) == "first"


@pytest.mark.parametrize("rotten", ["", "rubbish", None])
def test_files_of_no_use_leave_the_last_good_ones_in_force_and_are_told_once(files, made, rotten, caplog):
    context = TLS(certificate=files[0], key=files[1]).context()
    files[1].unlink()
    if rotten is not None:
        files[1].write_text(rotten)
    assert shake(context) == shake(context) == "first"
    assert caplog.text.count("the last good certificate stays in use") == 1
    install(made["second"], *files)
    assert shake(context) == "second"


def test_a_certificate_replaced_before_its_key_waits_for_the_key(files, made):
    context = TLS(certificate=files[0], key=files[1]).context()
    shutil.copy(made["second"][0], files[0])
    assert shake(context) == "first"
    shutil.copy(made["second"][1], files[1])
    assert shake(context) == "second"


def test_clients_need_a_certificate_where_it_is_required(files, made):
    options = TLS(certificate=files[0], key=files[1], ca=made["client"][0], client_auth="required")
    assert shake(options.context(), certificate=made["client"]) == "first"
    for wrong in (None, made["stranger"]):
        with pytest.raises(ssl.SSLError):
            shake(options.context(), certificate=wrong)


def test_clients_without_a_certificate_are_welcome_where_it_is_optional(files, made):
    options = TLS(certificate=files[0], key=files[1], ca=made["client"][0], client_auth="optional")
    assert shake(options.context()) == "first"
    with pytest.raises(ssl.SSLError):
        shake(options.context(), certificate=made["stranger"])


def test_an_authority_that_was_replaced_counts_no_more(files, made, tmp_path):
    authority = tmp_path / "ca.crt"
    shutil.copy(made["client"][0], authority)
    context = TLS(certificate=files[0], key=files[1], ca=authority, client_auth="required").context()
    shutil.copy(made["stranger"][0], authority)
    assert shake(context, certificate=made["stranger"]) == "first"
    with pytest.raises(ssl.SSLError):
        shake(context, certificate=made["client"])


def test_an_older_version_than_allowed_is_refused(files):
    context = TLS(certificate=files[0], key=files[1], min_version="1.3").context()
    with pytest.raises(ssl.SSLError):
        shake(context, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert shake(TLS(certificate=files[0], key=files[1]).context(), maximum_version=ssl.TLSVersion.TLSv1_2) == "first"


def test_what_can_not_be_read_at_start_is_named(files, made, tmp_path):
    missing, rotten = tmp_path / "missing.crt", tmp_path / "rotten.crt"
    rotten.write_text("rubbish")
    for options, name in (
        (TLS(certificate=missing, key=files[1]), "missing.crt"),
        (TLS(certificate=files[0], key=made["second"][1]), "second.key"),
        (TLS(certificate=files[0]), "server.crt"),
        (TLS(certificate=files[0], key=files[1], ca=missing, client_auth="required"), "missing.crt"),
        (TLS(certificate=files[0], key=files[1], ca=rotten, client_auth="required"), "rotten.crt"),
    ):
        with pytest.raises(Unusable, match=name):
            options.context()


def test_an_encrypted_key_is_an_error_and_no_question(files, tmp_path):
    encrypted = tmp_path / "encrypted.key"
    openssl("ec", "-in", files[1], "-aes128", "-passout", "pass:secret", "-out", encrypted)
    with pytest.raises(Unusable, match="encrypted"):
        TLS(certificate=files[0], key=encrypted).context()


@pytest.mark.parametrize("options", [{"ca": "x"}, {"client_auth": "required"}, {"client_auth": "optional"}])
def test_authorities_and_client_certificates_belong_together(options):
    with pytest.raises(ValidationError, match="belong together"):
        TLS(certificate="x", **options)
