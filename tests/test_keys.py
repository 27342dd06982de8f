"""A site's key: made once, kept from others, and only its public half is ever shown."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway import keys
from gateway.keys import SiteKeyError
from gateway.model import SPECS
from gateway.start_weights import start_filters
from gateway.wave import signed
from tools.cli import FINE, app


@pytest.fixture
def config(tmp_path):
    (tmp_path / "site.toml").write_text('name = "hall"\nrows = 1\ncols = 2\n')
    path = tmp_path / "gateway.toml"
    path.write_text('site = "site.toml"\nstate = "kept"\n')
    return path


def answer(capsys, config):
    assert FINE == app(["keys", "--config", str(config), "--json"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def test_the_first_call_makes_the_key_and_the_next_ones_show_it(config, capsys):
    first, second = answer(capsys, config), answer(capsys, config)
    assert (True, False) == (first.pop("made"), second.pop("made"))
    assert first == second
    assert ("hall", str(config.parent / "kept" / "site-key.pem")) == (first["site"], first["path"])


def test_what_is_shown_is_the_public_half_of_what_signs(config, capsys):
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(answer(capsys, config)["public"]))
    public.verify(keys.load_or_make(config.parent / "kept").sign(b"filters"), b"filters")


def test_the_private_half_is_never_printed_and_readable_by_its_owner_only(config, capsys):
    app(["keys", "--config", str(config)], standalone_mode=False)
    said = capsys.readouterr()
    path = config.parent / "kept" / "site-key.pem"
    key = keys.load_or_make(path.parent)
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()).hex()
    secret = [line for line in path.read_text().splitlines() if not line.startswith("-----")]
    assert not [text for text in (raw, *secret) if text in said.out + said.err]
    assert keys.public_hex(key) in said.out
    assert 0o600 == path.stat().st_mode & 0o777


def test_different_keys_have_different_fingerprints():
    pair = [Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2)]
    # SHA-256 of 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c, taken with sha256sum.
    assert "34750f98bd59fcfc" == keys.fingerprint(pair[0])
    assert keys.fingerprint(pair[0]) != keys.fingerprint(pair[1])


def x25519():
    return X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("make", [lambda: b"", lambda: b"hello", lambda: b"\xff" * 99, x25519])
def test_a_file_that_holds_no_such_key_is_named_and_left_as_it_is(config, make):
    path = config.parent / "kept" / "site-key.pem"
    path.parent.mkdir()
    path.write_bytes(before := make())
    line = r"site-key\.pem: holds no Ed25519 key; put it back from a backup, for nodes trust no other"
    with pytest.raises(SiteKeyError, match=line):
        app(["keys", "--config", str(config)], standalone_mode=False)
    assert before == path.read_bytes()


def test_a_key_that_is_not_there_is_made_by_load_or_make_only(tmp_path):
    with pytest.raises(SiteKeyError, match=r"site-key\.pem: No such file or directory; .*nodes trust no other"):
        keys.load(tmp_path)
    assert keys.public_hex(keys.load_or_make(tmp_path)) == keys.public_hex(keys.load(tmp_path))


def test_a_key_that_did_not_sign_what_nodes_hold_is_refused(tmp_path):
    first, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    data = signed(start_filters(SPECS["lean"]), "office", first)
    keys.check_signed(tmp_path, first, data)
    with pytest.raises(SiteKeyError, match=r"site-key\.pem: is not the key that nodes trust; put that one back"):
        keys.check_signed(tmp_path, other, data)


def test_a_folder_that_cannot_be_written_is_named(config):
    (config.parent / "kept").write_text("")
    with pytest.raises(SiteKeyError, match=r"site-key\.pem: .*; the gateway signs filter sets with this key"):
        app(["keys", "--config", str(config)], standalone_mode=False)
