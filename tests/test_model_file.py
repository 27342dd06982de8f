"""Models go from site to site as signed files; whatever is wrong with one is said in a line, and nothing changes."""

import hashlib
import json
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh_in_memory import make_model, make_site
from model_file_mutations import KINDS, bomb_of, parts_of, sealed
from model_file_trial import SITE, telling_model, thermesh, write_site
from store_bench import new_store

from gateway import foreign_head, keys, model_file
from gateway.model import SPECS, feature_len
from gateway.store import ACTIVE, PUSHED, REFUSED, Store, StoredModel
from gateway.store_blobs import pack_head
from gateway.wave import signed
from protocol import filter_set

KEY = Ed25519PrivateKey.generate()
LEAN = telling_model("lean", 1)
FILE = model_file.pack(LEAN, SITE, KEY)
FILTERS, HEAD, VECTORS = parts_of(FILE)
VECTOR_SIZE = feature_len(SITE, SPECS["lean"]) + 8
FLIPS, FLIPS_AT_COMMAND = 10_000, 250
# Of a check's whole process, and of the command's for a hundred files: 110 MB and 1.5 MB are usual.
CHECK_KB_MAX, GROWTH_KB_MAX = 300_000, 10_000


def unpack(data, site=SITE, spec="lean", key=KEY):
    return model_file.unpack(data, key.public_key(), site, SPECS[spec])


@pytest.fixture
def no_check(monkeypatch):
    """Fails where anything behind filters and golden vectors is looked at."""
    monkeypatch.setattr(foreign_head, "check", lambda *_: pytest.fail("the head was looked at"))


@pytest.mark.parametrize("spec", SPECS)
def test_a_file_brings_the_very_model_that_was_exported(spec):
    model = telling_model(spec, 2).numbered(7, 9)
    found = unpack(model_file.pack(model, SITE, KEY), spec=spec)
    assert ("memory", 7, 0) == (found.site_name, found.model.filters.version, found.model.head.revision)
    assert model.filters.as_json() == found.model.filters.as_json()
    assert repr([*model.head.layers]) == repr([*found.model.head.layers])


def test_a_file_for_the_largest_head_of_a_site_is_within_its_limit():
    lounge = make_site(17, 25)
    for spec in SPECS.values():
        assert len(model_file.pack(make_model(spec.name, lounge), lounge, KEY)) <= model_file.size_max(lounge, spec)


# The signature, and what it covers


def of_format(form):
    facts = FILE[:2] + bytes((form,)) + FILE[3:48]
    return facts + KEY.sign(facts) + FILE[112:]


ENVELOPES = {
    "nothing": (b"", "is no model file; write one with `thermesh filters export`"),
    "an envelope cut short": (FILE[:111], "is no model file"),
    "a filter set": (signed(LEAN.filters, SITE.name, KEY), "is no model file"),
    "an envelope alone": (FILE[:112], "signature: the content is not what was signed"),
    "a byte less": (FILE[:-1], "signature: the content is not what was signed"),
    "a byte more": (FILE + b"\0", "signature: the content is not what was signed"),
    "sizes that do not add up": (sealed([FILTERS, HEAD, VECTORS], KEY, (1, 2, 3)), "signature: the content is not"),
    "huge sizes": (sealed([FILTERS, HEAD, VECTORS], KEY, [2**32 - 1] * 3), "signature: the content is not"),
    "another key": (model_file.pack(LEAN, SITE, Ed25519PrivateKey.generate()), "signature: the trusted key did not"),
    "no signature": (FILE[:48] + bytes(64) + FILE[112:], "signature: the trusted key did not sign it"),
    "a signature of a digest": (
        FILE[:48] + KEY.sign(hashlib.sha256(FILE[:48]).digest()) + FILE[112:],
        "signature: the trusted key did not sign it",
    ),
    "a format to come": (of_format(2), "format: 2 is unknown, this release reads 1"),
}


@pytest.mark.parametrize(("data", "line"), ENVELOPES.values(), ids=ENVELOPES)
def test_what_is_not_signed_as_it_stands_is_refused_before_anything_in_it_is_looked_at(no_check, data, line):
    with pytest.raises(model_file.ModelFileError, match=line):
        unpack(data)


def flipped(seed, count):
    """The file with one byte changed, so many times, each in another way."""
    changes = [(at, change) for at in range(len(FILE)) for change in range(1, 256)]
    for at, change in random.Random(seed).sample(changes, count):
        yield FILE[:at] + bytes((FILE[at] ^ change,)) + FILE[at + 1 :]


def test_each_of_ten_thousand_changed_bytes_is_refused_at_the_signature(no_check, seed):
    for data in flipped(seed, FLIPS):
        with pytest.raises(model_file.ModelFileError, match=r"^signature: |^is no model file"):
            unpack(data)


# What is signed and wrong all the same


def with_vector(place, data):
    return VECTORS[:place] + data + VECTORS[place + len(data) :]


def part(index, data):
    parts = [FILTERS, HEAD, VECTORS]
    return [*parts[:index], data, *parts[index + 1 :]]


OF_SEED = parts_of(model_file.pack(telling_model("seed", 1), SITE, KEY))
NAN = with_vector(VECTOR_SIZE - 4, struct.pack("<f", float("nan")))
PARTS = {
    "filters too long": (part(0, bytes(filter_set.SIZE_MAX + 1)), "filters: 11001 bytes are too many; .* 11000 at mo"),
    "a head too long": (part(1, HEAD + bytes(9_000)), "head: .* bytes are too many; a model of spec lean for this"),
    "too many golden vectors": (part(2, VECTORS + VECTORS[:VECTOR_SIZE]), "golden vectors: .* bytes are too many"),
    "no golden vectors": (part(2, b""), "golden vectors: 0 bytes are none of 2 features"),
    "part of a golden vector": (part(2, VECTORS[:-1]), "golden vectors: 159 bytes are none of 2 features"),
    "golden vectors that are no numbers": (part(2, NAN), "golden vectors: some logits are not finite"),
    "no filters": (part(0, b""), "filters: filter set cut short; export it again"),
    "filters of another kind": (part(0, b"TG" + FILTERS[2:]), "filters: no filter set of format 1"),
    "another self-test": (
        part(0, FILTERS[:-65] + bytes((FILTERS[-65] ^ 1,)) + FILTERS[-64:]),
        "filters: their self-tests do not give what stands in the file",
    ),
    "no self-tests": (part(0, LEAN.filters.pack(SITE.name)), "filters: their self-tests do not give"),
}


@pytest.mark.parametrize(("parts", "line"), PARTS.values(), ids=PARTS)
def test_what_can_be_seen_without_it_is_refused_before_a_head_is_looked_at(no_check, parts, line):
    with pytest.raises(model_file.ModelFileError, match=line):
        unpack(sealed(parts, KEY))


LOGIT = VECTOR_SIZE * 3 - 4
HEADS = {
    "other golden logits": (
        part(2, with_vector(LOGIT, struct.pack("<f", struct.unpack_from("<f", VECTORS, LOGIT)[0] + 0.1))),
        "head: golden vectors: logits differ by up to 0.1;",
    ),
    "filters of another spec": ([OF_SEED[0], HEAD, VECTORS], "filters: .* are not of spec lean"),
}


@pytest.mark.parametrize(("parts", "line"), HEADS.values(), ids=HEADS)
def test_parts_that_do_not_fit_each_other_are_refused(parts, line):
    with pytest.raises(ValueError, match=line):
        unpack(sealed(parts, KEY))


def test_a_model_for_other_blocks_is_refused_by_name():
    with pytest.raises(ValueError, match="golden vectors: 160 bytes are none of 9 features"):
        unpack(FILE, site=make_site(6, 6))


def test_a_check_that_lies_brings_no_head_that_golden_vectors_do_not_know(monkeypatch):
    other = telling_model("lean", 2).head
    monkeypatch.setattr(foreign_head, "check", lambda *_: other)
    with pytest.raises(foreign_head.ForeignHeadError, match="golden vectors: logits differ"):
        unpack(FILE)


# Limits of the process that looks at a head

LIMITED = "from gateway import foreign_head; foreign_head.CPU_S_MAX = 1; foreign_head._limit({}, {})\n"
RUN_BOMB = """
import resource, sys, onnxruntime
try:
    onnxruntime.InferenceSession(sys.stdin.buffer.read(), providers=["CPUExecutionProvider"]).run(None, {})
except Exception:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
ANSWER_MAX = 10_000


def limited(does, given=b""):
    """What `_run` gives of a process that limits itself as the check does, and then does something; and its answer."""
    program = LIMITED.format(foreign_head.MEMORY_BASE, ANSWER_MAX) + does
    with tempfile.TemporaryFile() as answer:
        code = foreign_head._run([sys.executable, "-c", program], given, answer)
        answer.seek(0)
        return code, answer.read()


def test_a_model_of_a_hundred_bytes_that_asks_for_gigabytes_gets_none_of_them():
    model = bomb_of(1 << 29)  # 2 GB
    code, peak_kb = limited(RUN_BOMB, model)
    assert (0, True) == (code, len(model) < 150)
    assert int(peak_kb) < CHECK_KB_MAX


def test_who_takes_too_long_is_ended():
    assert -signal.SIGXCPU == limited("while True: pass")[0]


def test_who_waits_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(foreign_head, "WALL_S_MAX", 0.01)
    assert (-signal.SIGKILL, b"") == limited("sys.stdin.read()")


def test_who_answers_too_much_is_cut_short():
    code, answer = limited("import os\nwhile True: os.write(1, bytes(4_096))")
    assert (True, ANSWER_MAX) == (code != 0, len(answer))


@pytest.mark.parametrize(
    ("code", "answer", "line"),
    [
        (-signal.SIGXCPU, b"", "head: the check of it was ended by SIGXCPU: it took more memory or time than it may"),
        (1, b"", "head: the check of it ended with code 1 and no answer; nothing of it is used"),
        (0, b"", "head: the check of it ended with code 0 and no answer"),
        (0, b"-a\x1b[2J\nline", r"head: a\?\[2J\?line$"),
        (0, b"+", "head: the check of it gave no head of version 1"),
        (0, b"+" + pack_head(make_model("lean", make_site(1, 1)).head), r"gave widths \(2, 2\), not \(3, 2\);"),
    ],
)
def test_an_end_or_an_answer_that_is_no_head_is_named_in_one_line(monkeypatch, code, answer, line):
    monkeypatch.setattr(foreign_head, "_run", lambda _command, _given, file: (file.write(answer), code)[1])
    with pytest.raises(foreign_head.ForeignHeadError, match=line) as caught:
        unpack(FILE)
    assert str(caught.value).isprintable()


# The command


@pytest.fixture
def config(tmp_path):
    path = write_site(tmp_path, "lean")
    keys.load_or_make(tmp_path / "kept")
    with new_store(tmp_path / "kept", LEAN, SITE):
        pass
    return path


@pytest.fixture
def store(config):
    with Store(config.parent / "kept", SITE) as opened:
        yield opened


def test_a_model_of_another_key_is_ordered_signed_with_the_sites_own_under_the_next_version(config, store):
    there = telling_model("lean", 2).numbered(40, 3)
    (config.parent / "model").write_bytes(model_file.pack(there, SITE, KEY))
    words = "filters", "import", config.parent / "model", "--trust", keys.public_hex(KEY), "--config", config, "--json"
    code, out, _ = thermesh(*words)
    source = "from model file model: filters 40 of site 'memory'"
    assert (0, {"filters": 2, "head": 2, "source": source, "running": False}) == (code, json.loads(out))
    assert ([(1, 1)], [(2, 2)]) == (store.model_keys(ACTIVE), store.model_keys(PUSHED))
    placed = store.model(2, 2)
    assert repr([*there.head.layers]) == repr([*placed.model.head.layers])
    keys.check_signed(config.parent / "kept", keys.load(config.parent / "kept"), placed.filter_set)


def test_what_is_exported_says_how_it_is_imported(config):
    code, out, _ = thermesh("filters", "export", config.parent / "model", "--config", config)
    public = keys.public_hex(keys.load(config.parent / "kept"))
    assert (0, True) == (code, f"filters import model --trust {public} --config gateway.toml" in out)
    assert FILE[112:] == (config.parent / "model").read_bytes()[112:]


def test_a_stored_model_is_exported_by_its_version(config, store):
    model = LEAN.numbered(2, 2)
    store.add_model(StoredModel(model, signed(model.filters, SITE.name, KEY), REFUSED, 0.0))
    words = "filters", "export", config.parent / "model", "--config", config, "--version", 2, "--json"
    found = json.loads(thermesh(*words)[1])
    assert (2, 2, "lean", "memory") == tuple(found[name] for name in ("filters", "head", "spec", "site"))


WORDS = {
    "no key": (("import", "FILE", "--trust", "xyz"), "--trust: 'xyz' is no public key; write the 64 hex digits that"),
    "half a key": (("import", "FILE", "--trust", "ab" * 31), "--trust: .* is no public key"),
    "no file": (("import", "NONE", "--trust", "ab" * 32), "none: cannot be read: No such file or directory; name a"),
    "a folder": (("import", ".", "--trust", "ab" * 32), r"\.: cannot be read: Is a directory"),
    "a long file": (("import", "LONG", "--trust", "ab" * 32), "long: is longer than 19496 bytes; no model of spec le"),
    "somebody else's file": (("import", "FILE", "--trust", "ab" * 32), "file: signature: the trusted key did not sign"),
    "a file that is there": (("export", "FILE"), "file: cannot be written: File exists; name a new file"),
    "no such version": (("export", "NONE", "--version", "9"), "--version: 9 is not stored; there are 1$"),
}


@pytest.mark.parametrize(("words", "line"), WORDS.values(), ids=WORDS)
def test_what_cannot_be_taken_or_written_is_one_line_and_code_two(config, store, words, line):
    folder = config.parent
    (folder / "file").write_bytes(FILE)
    (folder / "long").write_bytes(bytes(20_000))
    places = {"FILE": folder / "file", "NONE": folder / "none", "LONG": folder / "long"}
    code, out, err = thermesh("filters", *[places.get(word, word) for word in words], "--config", config)
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert re.search(line, err.strip())
    assert [] == store.model_keys(PUSHED)


def test_of_hundreds_of_changed_bytes_each_is_one_line_and_code_two_at_the_command(config, store, seed):
    file = config.parent / "model"
    for data in flipped(seed, FLIPS_AT_COMMAND):
        file.write_bytes(data)
        code, out, err = thermesh("filters", "import", file, "--trust", keys.public_hex(KEY), "--config", config)
        assert (2, "") == (code, out)
        assert re.fullmatch(r"thermesh: \S+/model: (signature: |is no model file)[^\n]+\n", err)
    assert ([(1, 1)], 1) == (store.model_keys(ACTIVE), len(store.model_keys()))


# All of it

SAYS = {
    "other operator": "operator: '",
    "bomb": "operator: 'ConstantOfShape' is none of a head: (Concat, )?Div, Gemm",
    "only a bomb": "operator: 'ConstantOfShape'",
    "expanding": "operator: '(Expand|Tile)'",
    "function": "has functions|bytes are too many",
    "foreign domain": "domain: '",
    "subgraph": "attribute: 'body' holds more than numbers|bytes are too many",
    "tensor attribute": "attribute: 'value' holds more than numbers",
    "external data": "sparse or lie in another file",
    "external data unsaid": "sparse or lie in another file",
    "sparse tensor": "sparse or lie in another file",
    "huge shape": r"tensors\[\d\]: is .*, must be",
    "tensor of another type": r"tensors\[\d\]: is .*, must be .*'FLOAT'",
    "tensor cut": r"has \d+ bytes, must have \d+",
    "not finite": "some numbers are not finite",
    "cycle": "graph.node: is not that of",
    "output added": "graph.output: is not that of",
    "other opset": "opset_import: is not that of",
    "unknown field": "fields that ONNX does not know",
    "other weights": "golden vectors: logits differ by up to",
    "noise": "is no ONNX model",
}


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["lean", "seed"])
def test_of_a_hundred_foreign_heads_that_were_changed_none_is_taken_and_the_old_one_decides(tmp_path, spec, seed):
    """Two hundred in all, each signed by the trusted key; then the file as it was is taken, and decides."""
    trial = Path(__file__).with_name("model_file_trial.py")
    command = [sys.executable, str(trial), str(tmp_path), spec, "100", str(seed)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(KINDS) == len({kind for kind, _, _ in found["refusals"]})
    assert [] == [refusal for refusal in found["refusals"] if not is_one_line(*refusal)]
    assert (100, [[1, 1]]) == (len(found["refusals"]), found["decided"])
    assert (1, 1) == (found["models"], found["published"])
    assert (found["child_kb"] < CHECK_KB_MAX, found["grown_kb"] < GROWTH_KB_MAX) == (True, True), found
    assert [0, "", 2, 2] == found["good"]


def is_one_line(kind, code, err):
    """Whether the command ended with 2 and one line, which says what it is, where one check is there for that."""
    return code == 2 and re.fullmatch(rf"thermesh: \S+/model: head: [^\n]*({SAYS.get(kind, '')})[^\n]*\n", err)
