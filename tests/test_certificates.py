"""The site's authority and the broker's certificate: kept as long as they are of use, made anew when they are not."""

import ssl
from datetime import timedelta

import pytest

from gateway import certificates
from gateway.certificates import CertificateError, load, load_or_make, write_broker
from gateway.files import write_private

NAMES = {"127.0.0.1", "localhost", "broker.hall"}


@pytest.fixture
def broker(tmp_path):
    """Writes the broker's file and gives what it holds."""

    def write(authority, names=NAMES):
        write_broker(tmp_path / "broker.pem", authority, names)
        return (tmp_path / "broker.pem").read_bytes()

    return write


def test_an_authority_is_made_once_and_can_be_read_by_its_owner_only(tmp_path):
    made = load_or_make(tmp_path / "state", "hall").certificate_pem
    assert made == load_or_make(tmp_path / "state", "hall").certificate_pem == load(tmp_path / "state")
    assert 0o600 == (tmp_path / "state" / certificates.NAME).stat().st_mode & 0o777
    assert "PRIVATE" not in made


def test_without_a_file_there_is_no_authority(tmp_path):
    assert "" == load(tmp_path)


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\n", "another's key"])
def test_a_damaged_authority_is_named_and_left_as_it_is(tmp_path, text):
    path = tmp_path / certificates.NAME
    if text == "another's key":
        mine, others = load_or_make(tmp_path / "mine", "hall"), load_or_make(tmp_path / "others", "hall")
        text = others.pem.decode().split("-----BEGIN CERTIFICATE")[0] + mine.certificate_pem
    path.write_text(text)
    for use in (load, lambda state: load_or_make(state, "hall")):
        with pytest.raises(CertificateError, match=r"broker-ca\.pem: holds no key with its certificate; put it back"):
            use(tmp_path)
    assert text == path.read_text()


@pytest.mark.parametrize("authority", ["same", "other"])
@pytest.mark.parametrize("names", [NAMES, NAMES | {"::1"}])
@pytest.mark.parametrize("damaged", [False, True])
def test_the_brokers_certificate_is_kept_while_authority_and_names_are_the_same(
    tmp_path, broker, authority, names, damaged
):
    authorities = {name: load_or_make(tmp_path / name, "hall") for name in ("same", "other")}
    before = broker(authorities["same"])
    if damaged:
        write_private(tmp_path / "broker.pem", before[:-100])
    stays = (authority, names, damaged) == ("same", NAMES, False)
    assert stays == (before == broker(authorities[authority], names))


@pytest.mark.parametrize(("years", "stays"), [(18, True), (19.5, False), (20, False)])
def test_what_ends_within_a_year_is_made_anew(tmp_path, broker, monkeypatch, years, stays):
    monkeypatch.setattr(certificates, "_YEARS", timedelta(days=(20 - years) * 365))
    authority, before = load_or_make(tmp_path, "hall"), broker(load_or_make(tmp_path, "hall"))
    monkeypatch.undo()
    assert stays == (authority.certificate_pem == load_or_make(tmp_path, "hall").certificate_pem)
    assert stays == (before == broker(authority))


def test_a_strict_client_takes_the_certificate(tmp_path, broker):
    authority = load_or_make(tmp_path, "hall")
    broker(authority)
    client, server = certificates.tls_context(authority.certificate_pem), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server.load_cert_chain(tmp_path / "broker.pem")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    inner = client.wrap_bio(back, there, server_hostname="broker.hall")
    outer = server.wrap_bio(there, back, server_side=True)
    for end in (inner, outer, inner):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert inner.getpeercert()["subjectAltName"]
