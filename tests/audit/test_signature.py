"""Who signed a run: keys of medgen, openssl and ssh-keygen; whatever is changed afterwards is seen."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from medgen.audit.signature import check_signature, new_key, sign
from medgen.errors import AuditError, ConfigError
from medgen.runs import outputs
from medgen.system import files


@pytest.fixture
def out(tmp_path):
    files.write_text(tmp_path / "run" / "config.yaml", "a: 1\n")
    outputs.write_outputs_record(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def key(tmp_path):
    new_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def public(key):
    return key.with_name(f"{key.name}.pub")


def test_a_signature_holds_until_the_record_or_its_date_changes(out, key):
    assert check_signature(out) is None
    with pytest.raises(AuditError, match="is not signed"):
        check_signature(out, public(key))
    signed = sign(out, key)
    assert check_signature(out, public(key)) == check_signature(out) == signed
    told = files.read_json(out / outputs.SIGNATURE)
    files.write_json(out / outputs.SIGNATURE, {**told, "signed": "2001-01-01T00:00:00Z"})
    with pytest.raises(AuditError, match="does not hold"):
        check_signature(out, public(key))
    files.write_json(out / outputs.SIGNATURE, told)
    record = files.read_json(out / outputs.RECORD)
    del record["sha256"]
    files.write_json(out / outputs.RECORD, files.sealed({**record, "seed": 5}))
    with pytest.raises(AuditError, match="does not hold"):
        check_signature(out)


def test_a_signature_of_another_key_is_refused(out, key, tmp_path):
    sign(out, key)
    new_key(tmp_path / "other.pem")
    with pytest.raises(AuditError, match=r"is signed with the key SHA256:\S+, not with SHA256:"):
        check_signature(out, tmp_path / "other.pem.pub")


def test_the_private_key_is_for_its_owner_alone(key):
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="exists already"):
        new_key(key)


def test_a_passphrase_is_needed_where_there_is_one(out, tmp_path):
    key = tmp_path / "locked.pem"
    new_key(key, "open sesame")
    with pytest.raises(AuditError, match="its passphrase is needed"):
        sign(out, key)
    with pytest.raises(AuditError, match="the passphrase is wrong"):
        sign(out, key, "sesame")
    sign(out, key, "open sesame")
    assert check_signature(out, public(key)) is not None


def test_what_is_no_key_is_one_sentence(out, key, tmp_path):
    (tmp_path / "text.pem").write_text("no key")
    with pytest.raises(AuditError, match="no private key in PEM"):
        sign(out, tmp_path / "text.pem")
    with pytest.raises(AuditError, match="no public key in PEM"):
        check_signature(out, tmp_path / "text.pem")
    with pytest.raises(AuditError, match=r"is a private key; expected the public one, key\.pem\.pub"):
        check_signature(out, key)
    with pytest.raises(AuditError, match="expected a key"):
        sign(out, tmp_path / "absent.pem")
    files.write_text(out / outputs.SIGNATURE, '{"signed": 1}')
    with pytest.raises(AuditError, match="is no signature of medgen"):
        check_signature(out)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_keys_of_openssl_do(out, tmp_path):
    key = tmp_path / "own.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", tmp_path / "own.pub"], check=True)
    sign(out, key)
    assert check_signature(out, tmp_path / "own.pub") is not None
    subprocess.run(["openssl", "genpkey", "-algorithm", "rsa", "-out", tmp_path / "rsa.pem"], check=True)
    with pytest.raises(AuditError, match="a key of another kind; expected Ed25519"):
        sign(out, tmp_path / "rsa.pem")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_keys_and_fingerprints_of_ssh_do(out, tmp_path):
    key = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    told = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True).stdout
    assert sign(out, key).key == told.split()[1]
    assert check_signature(out, public(key)) is not None
