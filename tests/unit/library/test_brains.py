from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema
import pytest

from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.errors import FailedPrecondition, InvalidManifest, NotFound
from encephalon.library.brains import load_manifest, parse_manifest, schema

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
DIGITS = (EXAMPLES / "digits.yaml").read_text()
REMOTE = """brain: far
inputs:
  image: {datatype: UINT8, shape: [-1, 3]}
regions:
  eye: {address: "127.0.0.1:8001", model: net}
pathways:
  - {from: image, to: eye.pixels}
outputs:
  seen: eye.classes
"""


def refused(text: str, origin: str = "digits.yaml") -> str:
    with pytest.raises(InvalidManifest) as caught:
        parse_manifest(text, origin)
    return caught.value.message


def changed(old: str, new: str) -> str:
    assert old in DIGITS
    return DIGITS.replace(old, new)


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(DIGITS.splitlines(), 1) if text in line)


@pytest.mark.parametrize("name", ["digits", "pair", "borrowed"])
def test_examples_load_and_fit_the_schema(name):
    brain = load_manifest(EXAMPLES / f"{name}.yaml")
    assert brain.name == name
    jsonschema.validate(json.loads(brain.to_json()), schema())
    again = parse_manifest(brain.to_json())
    assert again == brain


def test_the_contract_of_the_whole_brain():
    contract = parse_manifest(DIGITS).contract
    assert [(spec.name, spec.datatype, spec.optional) for spec in contract.inputs] == [
        ("image", "UINT8", True),
        ("audio", "INT16", True),
    ]
    assert [spec.name for spec in contract.outputs] == ["probabilities", "image_probabilities", "audio_probabilities"]


def test_times_are_seconds_and_defaults_are_left_open():
    brain = load_manifest(EXAMPLES / "borrowed.yaml")
    hedged = next(path for path in brain.pathways if path.hedge_s)
    assert (hedged.timeout_s, hedged.retries, hedged.hedge_s) == (0.5, 1, 0.1)
    assert brain.pathways[0].retries is None
    assert brain.region("visual").max_batch == 16


def test_an_unknown_input_names_line_and_pathway():
    message = refused(changed("association.image_features", "association.image_feature"))
    line = line_of("association.image_features")
    assert message == (
        f"digits.yaml line {line}: pathway visual.features -> association.image_feature: "
        "association has no input 'image_feature'; it has image_features, audio_features"
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("visual.features", "visual.feature", "visual has no output 'feature'; it has features, probabilities"),
        ("from: image,", "from: picture,", "the brain has no input 'picture'; it has image, audio"),
        ("to: visual.image", "to: visul.image", "no region 'visul'; did you mean 'visual'?"),
        ("to: visual.image", "to: visual", "'visual' is not an input of a region; name it as <region>.<input>"),
        ("from: image,", "from: audio,", "pathway audio -> visual.image: INT16 goes into UINT8"),
        ("datatype: UINT8", "datatype: INT8", "pathway image -> visual.image: INT8 goes into UINT8"),
        ("[-1, -1, -1]", "[-1, -1]", "shape [-1, -1] goes into [-1, -1, -1]; they differ in rank"),
        ("vision/002", "vison/002", "no area 'vison'; did you mean 'vision'?"),
        ("vision/002", "vision/009", "area vision has no network 009; it has 001 LeNet3"),
        ("vision/002", "vision", "'network' of region 'visual'"),
        (
            "network: vision/002",
            "netwrk: vision/002",
            "unknown key 'netwrk' of region 'visual'; did you mean 'network'?",
        ),
        ("network: vision/002", "network: vision/002, address: 'a:1'", "both a network and an address"),
        ("network: vision/002, ", "", "neither a network nor an address"),
        (
            "network: vision/002",
            "network: vision/002, model: net",
            "'model' of region 'visual' goes only with an address",
        ),
        ("network: vision/002", "network: vision/002, replicas: 0", "'replicas' of region 'visual'"),
        ("max_delay_ms: 2}", "max_delay_ms: .nan}", "'max_delay_ms' of region 'visual'"),
        ("timeout_ms: 2000", "timeout_ms: -1", "'timeout_ms' of pathway visual.features -> association.image_features"),
        ("timeout_ms: 2000", "timeout: 2000", "unknown key 'timeout' of pathway"),
        ("probabilities: association.prob", "probabilities: assoc.prob", "output 'probabilities': no region 'assoc'"),
        (": visual.probabilities", ": visual.probs", "output 'image_probabilities': visual has no output 'probs'"),
        (": visual.probabilities", ": image", "name it as <region>.<output>"),
        ("  visual:", "  vis.ual:", "'vis.ual' is no valid name"),
        ("brain: digits", "brain: 7", "'brain': input should be a valid string, got 7"),
        ("brain: digits\n", "", "'brain' is missing"),
        ("optional: true, description", "optional: maybe, description", "'optional' of input 'image'"),
        (
            "from: audio, to: auditory.audio",
            "from: image, to: visual.image",
            "visual.image has a pathway already, on line",
        ),
    ],
)
def test_each_mistake_gets_a_sentence(old, new, says):
    message = refused(changed(old, new))
    assert says in message
    assert message.startswith("digits.yaml line ")


def test_a_required_input_without_a_pathway():
    text = (EXAMPLES / "pair.yaml").read_text().replace("  - {from: left, to: first.x}\n", "")
    assert "region 'first' has no pathway to any input" in refused(text)


def test_a_circle_is_shown():
    text = (EXAMPLES / "pair.yaml").read_text().replace("from: left, to", "from: join.y, to")
    message = refused(text)
    assert "the regions run in a circle: " in message
    assert "join -> first -> join" in message or "first -> join -> first" in message


def test_nothing_runs_in_vain():
    extra = "  spare: {network: vision/001}\n"
    text = changed("pathways:\n", "pathways:\n  - {from: image, to: spare.image}\n").replace(
        "regions:\n", "regions:\n" + extra
    )
    assert "region 'spare' reaches no output" in refused(text)
    text = changed("inputs:\n", "inputs:\n  smell: {datatype: FP32, shape: [-1]}\n")
    assert "input 'smell' has no pathway" in refused(text)


def test_a_repeated_key_is_refused():
    assert "'visual' is given twice, first on line" in refused(changed("  auditory:", "  visual:"))


def test_what_is_no_yaml_names_the_line():
    assert refused("brain: digits\nregions: [").startswith("digits.yaml line 2: ")
    assert "a mapping" in refused("[]")
    assert "empty" in refused("")
    assert "line 2: a character that YAML does not allow" in refused("brain: x\n\x00")
    assert "a key must be text" in refused("1: 2")
    assert refused("brain: !!python/object/apply:os.system [ls]")
    assert "not a value that YAML knows" in refused("brain: 2024-13-45")


def bomb() -> str:
    levels = (f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10))
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *levels])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (bomb(), "unfolds to more than"),
        ("x: " + "[" * 5000 + "]" * 5000, "levels deep"),
        ("x: &x [*x]", "levels deep"),
        ("# " + "x" * 200_000, "at most 128 KiB"),
    ],
)
def test_bombs_are_refused_quickly(text, says):
    started = time.perf_counter()
    assert says in refused(text)
    assert time.perf_counter() - started < 3


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(NotFound, match="cannot read the manifest"):
        load_manifest(tmp_path / "none.yaml")
    with pytest.raises(NotFound):
        load_manifest(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"brain: x\n# \xe9\n")
    with pytest.raises(InvalidManifest, match=r"latin.yaml line 2: not UTF-8"):
        load_manifest(tmp_path / "latin.yaml")


def test_a_contract_that_is_read_later():
    brain = parse_manifest(REMOTE)
    assert [region.name for region in brain.unresolved] == ["eye"]
    with pytest.raises(FailedPrecondition, match="region 'eye' is not known"):
        _ = brain.contract
    fits = Contract((TensorSpec("pixels", "UINT8", (-1, -1)),), (TensorSpec("classes", "FP32", (-1, 10)),))
    known = brain.resolved({"eye": fits})
    assert not known.unresolved
    assert known.contract.outputs == (TensorSpec("seen", "FP32", (-1, 10)),)
    wrong = Contract((TensorSpec("pixels", "FP32", (-1, -1)),), fits.outputs)
    with pytest.raises(InvalidManifest, match=r"line 7: pathway image -> eye\.pixels: UINT8 goes into FP32"):
        brain.resolved({"eye": wrong})


def test_an_address_may_be_many_things():
    for address in ("localhost:8001", "unix:/tmp/x.sock", "[::1]:8001", "my-host.example:1"):
        assert parse_manifest(REMOTE.replace("127.0.0.1:8001", address)).region("eye").address == address
    assert "'address' of region 'eye'" in refused(REMOTE.replace("127.0.0.1:8001", "nowhere"))
