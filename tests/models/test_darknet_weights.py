"""darknet's .weights: byte for byte there and back, every length told apart, every other file called what it is."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from onestage import models
from onestage.errors import ModelError
from onestage.models.darknet.binary import look, read_weights, weights_bytes
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import parse
from onestage.models.darknet.changed import changed
from onestage.models.darknet.header import Header, cut_of, is_weights
from onestage.models.darknet.layers import Architecture
from onestage.models.darknet.layout import Layout, astray, floats
from onestage.models.darknet.plans import PLANS, plan
from toy_cfg import TOY

NET = architecture(parse(TOY))
HEADERS = (Header(), Header(0, 2, 0, 32_013_312), Header(0, 1, 0, 7), Header(1, 0, 0, 2**40), Header(0, 2, 5, 3))


def numbers(network: Architecture, seed: int = 0, classes: int | None = None) -> dict[str, np.ndarray]:
    """Random tensors of every slot; variances are above 0."""
    rng = np.random.default_rng(seed)
    slots = Layout(network.classes if classes is None else classes).slots(network)
    found = {slot.name: rng.normal(size=slot.shape).astype(np.float32) for slot in slots}
    return {name: np.abs(x) + 0.1 if name.endswith("var") else x for name, x in found.items()}


def of_classes(network: Architecture, classes: int) -> Architecture:
    return architecture(changed(network.cfg, classes))


def put(
    path: Path, network: Architecture, seed: int = 0, header: Header | None = None, layers: int | None = None
) -> Path:
    path.write_bytes(weights_bytes(network, numbers(network, seed), header, layers))
    return path


@st.composite
def networks(draw: st.DrawFn) -> Architecture:
    """A chain of convolutions and pools before a head, and one more head at twice the size."""
    blocks, groups = ["[net]\nwidth=32\nheight=32\nchannels=3\n"], 3
    for _ in range(draw(st.integers(1, 4))):
        split = draw(st.sampled_from([1, groups]))
        filters = split * draw(st.integers(1, 3))
        blocks.append(
            f"[convolutional]\nfilters={filters}\nsize={draw(st.sampled_from([1, 3]))}\nstride=1\npad=1\n"
            f"groups={split}\nactivation=leaky\nbatch_normalize={draw(st.integers(0, 1))}\n"
        )
        groups = filters
        if draw(st.booleans()):
            blocks.append("[maxpool]\nsize=2\nstride=2\n")
    classes, anchors = draw(st.integers(1, 4)), "1,2, 3,4, 5,6"
    for mask in draw(st.sampled_from([["0,1,2"], ["2", "0,1"], ["1,2", "0"]])):
        filters = len(mask.split(",")) * (5 + classes)
        blocks.append(f"[convolutional]\nfilters={filters}\nsize=1\nstride=1\npad=1\nactivation=linear\n")
        blocks.append(f"[yolo]\nmask={mask}\nanchors={anchors}\nclasses={classes}\nnum=3\n")
        blocks.append("[route]\nlayers=-3\n")
    return architecture(parse("\n".join(blocks[:-1])))


@given(networks(), st.sampled_from(HEADERS), st.integers(0, 9))
@settings(max_examples=40)
def test_what_is_read_is_written_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, network, header, seed) -> None:
    path = put(tmp_path_factory.mktemp("w") / "a.weights", network, seed, header)
    file = read_weights(path, network)
    assert file.header == header
    assert (file.layout, file.skipped, file.notes) == (Layout(network.classes), {}, ())
    assert weights_bytes(network, file.tensors, file.header) == path.read_bytes()
    for name, tensor in numbers(network, seed).items():
        np.testing.assert_array_equal(file.tensors[name], tensor)


@pytest.mark.parametrize("name", PLANS)
def test_built_in_plans_at_an_eighth_of_their_width(tmp_path: Path, name: str) -> None:
    """All layers of the real networks, heads untouched."""
    text = re.sub(
        r"filters=(\d+)\n(?=size=\d+\nstride)", lambda found: f"filters={int(found[1]) // 8}\n", plan(name, 6).text()
    )
    network = architecture(parse(text))
    path = put(tmp_path / "a.weights", network)
    assert path.stat().st_size == 20 + 4 * floats(network) < 4_200_000
    file = read_weights(path, network)
    assert weights_bytes(network, file.tensors, file.header) == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "fixed", "each", "statistics"),
    [("yolov3", 61_491_424, 1795, 52_608), ("yolov3-tiny", 8_656_016, 770, 6_368)],
)
@pytest.mark.parametrize("classes", [6, 10, 20, 44, 80])
def test_numbers_of_parameters_and_of_floats(name: str, fixed: int, each: int, statistics: int, classes: int) -> None:
    """Counted from the released cfgs: P = fixed + each * filters of a head; a file has means and variances besides."""
    network = architecture(plan(name, classes))
    parameters = fixed + each * 3 * (5 + classes)
    assert floats(network) == parameters + statistics
    assert sum(2 * one.shape.channels for one in network.convolutions if one.normalised) == statistics
    known = {("yolov3", 80): 61_949_149, ("yolov3", 44): 61_755_289, ("yolov3", 10): 61_572_199,
             ("yolov3", 20): 61_626_049, ("yolov3", 6): 61_550_659, ("yolov3-tiny", 80): 8_852_366,
             ("yolov3-tiny", 6): 8_681_426}  # fmt: skip
    assert parameters == known.get((name, classes), parameters)


def test_sizes_of_released_files() -> None:
    """yolov3, yolov3-tiny and darknet53.conv.74 as pjreddie.com serves them; yolov4-tiny as AlexeyAB does."""
    assert 20 + 4 * floats(architecture(plan("yolov3", 80))) == 248_007_048
    assert 20 + 4 * floats(architecture(plan("yolov3-tiny", 80))) == 35_434_956
    assert floats(architecture(plan("yolov2-tiny", 80))) == 11_237_145
    assert 20 + 4 * floats(architecture(plan("yolov4-tiny", 80))) == 24_251_276
    assert 20 + 4 * floats(architecture(plan("yolov3", 80)), layers=74) == 162_482_580


@pytest.mark.parametrize(
    ("anchors", "masks"),
    [([8, 16, 32, 64], [[3], [0, 1, 2]]), ([8, 64], [[1], [0]]), ([8, 9, 16, 32, 64], [[3, 4], [0, 1, 2]])],
)
def test_heads_of_other_anchors_are_passed_over(tmp_path: Path, anchors: list[int], masks: list[list[int]]) -> None:
    """A network with anchors of its own starts from a file whose heads have three each."""
    path = put(tmp_path / "a.weights", architecture(plan("yolov3-tiny", 80)))
    pairs = [(side, side) for side in anchors]
    told = models.build("yolov3-tiny", 2, (96, 96), anchors=pairs, masks=masks).read(path)
    assert set(told.skipped) == {f"layers.{index}.conv.{leaf}" for index in (15, 22) for leaf in ("bias", "weight")}
    assert "its heads have 255 filters, these " in told.notes[0]


def test_how_far_other_readers_go_astray() -> None:
    """The two mistakes that cost diaries 002 and 004 their results."""
    tiny, big = architecture(plan("yolov3-tiny", 6)), architecture(plan("yolov3", 44))
    behind, layer = astray(tiny, 80)
    assert (behind, layer.index, floats(tiny, 80) - floats(tiny)) == (113_886, 18, 170_940)
    behind, layer = astray(big, 80)
    assert (behind, layer.index, floats(big, 80) - floats(big)) == (110_700, 84, 193_860)


@pytest.mark.parametrize("theirs", [1, 2, 4, 80])
def test_heads_of_other_classes_are_passed_over_and_the_rest_is_aligned(tmp_path: Path, theirs: int) -> None:
    other = of_classes(NET, theirs)
    path = put(tmp_path / "a.weights", other)
    file = read_weights(path, NET)
    assert file.layout == Layout(theirs)
    heads = {"layers.8.conv.bias", "layers.8.conv.weight", "layers.14.conv.bias", "layers.14.conv.weight"}
    assert set(file.skipped) == heads
    assert set(file.skipped.values()) == {f"a head of {theirs} classes, here 3"}
    whole = numbers(other)
    assert set(file.tensors) == set(whole) - heads
    for name, tensor in file.tensors.items():
        np.testing.assert_array_equal(tensor, whole[name])
    behind = 3 * (theirs - 3) * (6 + 1)
    end = f"leave {3 * (theirs - 3) * (7 + 13):,} unread" if theirs > 3 else f"miss {3 * (3 - theirs) * 20} at the end"
    assert f"{abs(behind):,} floats astray from layer 11 [convolutional], line " in file.notes[0]
    assert end in file.notes[0]


@pytest.mark.parametrize("layers", [1, 3, 4, 8, 9, 12])
def test_cut_off_files_by_name_and_without(tmp_path: Path, layers: int) -> None:
    for name in (f"toy.conv.{layers}", "toy.weights"):
        path = put(tmp_path / name, NET, layers=layers)
        file = read_weights(path, NET)
        last = [one.index for one in NET.convolutions if one.index < layers][-1]
        assert file.layout.layers == (layers if "conv" in name else last + 1)
        assert {int(slot.split(".")[1]) for slot in file.tensors} == {
            one.index for one in NET.convolutions if one.index < layers
        }
        assert f"the first {file.layout.layers} of 16 layers" in file.notes[0]
        assert weights_bytes(NET, file.tensors, file.header, layers) == path.read_bytes()


def test_a_cut_off_file_with_heads_of_other_classes(tmp_path: Path) -> None:
    path = put(tmp_path / "toy.conv.12", of_classes(NET, 5), layers=12)
    file = read_weights(path, NET)
    assert file.layout == Layout(5, 12)
    assert set(file.skipped) == {"layers.8.conv.bias", "layers.8.conv.weight"}
    assert len(file.notes) == 2
    assert "84 unread" not in file.notes[1]
    assert "leave 42 unread" in file.notes[1]


def test_a_cut_that_its_name_belies_is_an_error(tmp_path: Path) -> None:
    whole = put(tmp_path / "toy.conv.8", NET)
    with pytest.raises(ModelError, match="its name says the first 8 layers") as caught:
        read_weights(whole, NET)
    assert caught.value.problems == ("so many have all of its layers",)
    assert caught.value.hint == "the ending .weights"
    cut = put(tmp_path / "toy.conv.4", NET, layers=8)
    with pytest.raises(ModelError, match="which have 764 numbers; it holds 836, 72 too many") as caught:
        read_weights(cut, NET)
    assert caught.value.hint == "the ending .conv.8"
    (tmp_path / "toy.conv.3").write_bytes(Header().as_bytes() + bytes(4 * 5))
    with pytest.raises(ModelError, match="too few") as caught:
        read_weights(tmp_path / "toy.conv.3", NET)
    assert "it ends within layer 0 [convolutional], line 7" in caught.value.problems[0]


def test_a_number_of_layers_beyond_the_last_is_the_whole_file(tmp_path: Path) -> None:
    assert read_weights(put(tmp_path / "toy.conv.99", NET), NET).layout == Layout(3)


def test_files_of_pytorch_yolov3_have_one_number_more(tmp_path: Path) -> None:
    """Its header is five int32 of zeros, by which darknet reads a version 0.0 and 16 bytes."""
    body = weights_bytes(NET, numbers(NET), Header(0, 2, 0))[20:]
    path = tmp_path / "a.weights"
    path.write_bytes(struct.pack("<5i", 0, 0, 0, 960, 0) + body)
    file = read_weights(path, NET)
    assert file.layout == Layout(3, None, 1)
    assert (file.header.version, file.header.seen) == ("0.2.0", 960)
    assert "PyTorch-YOLOv3" in file.notes[0]
    for name, tensor in numbers(NET).items():
        np.testing.assert_array_equal(file.tensors[name], tensor)
    again = weights_bytes(NET, file.tensors, file.header)
    assert struct.unpack("<3iq", again[:20]) == (0, 2, 0, 960)
    assert again[20:] == body
    other = weights_bytes(of_classes(NET, 5), numbers(of_classes(NET, 5)))[20:]
    path.write_bytes(bytes(20) + other)
    assert read_weights(path, NET).layout == Layout(5, None, 1)


@pytest.mark.parametrize("more", [1, -1, 12, 61, -7])
def test_a_length_that_nothing_explains(tmp_path: Path, more: int) -> None:
    data = weights_bytes(NET, numbers(NET))
    path = tmp_path / "a.weights"
    path.write_bytes(data + bytes(4 * more) if more > 0 else data[: 4 * more])
    with pytest.raises(ModelError) as caught:
        read_weights(path, NET)
    total, text = floats(NET), str(caught.value)
    assert f"it holds {total + more:,} numbers, the network with 3 classes takes {total:,}: {abs(more)} too" in text
    last = TOY[: TOY.rindex("[convolutional]")].count("\n") + 1
    where = "are left over after" if more > 0 else "it ends within"
    where += f" layer 14 [convolutional], line {last}"
    assert where in text
    assert "each changes the length by 60" in text


def test_another_network_is_told_where_it_cannot_be_this_one(tmp_path: Path) -> None:
    """Its numbers are no variances where ours would have some."""
    wider = architecture(parse(TOY.replace("filters=6\n", "filters=7\n")))
    path = put(tmp_path / "a.weights", wider)
    with pytest.raises(ModelError, match=r"cannot be this network's from layer \d+ \[convolutional\], line \d+ on"):
        read_weights(path, NET)


@pytest.mark.parametrize(
    ("value", "told"), [(np.nan, "not finite"), (np.inf, "not finite"), (-1.0, "variances are below 0")]
)
def test_numbers_that_no_trained_network_has(tmp_path: Path, value: float, told: str) -> None:
    tensors = numbers(NET)
    path = tmp_path / "a.weights"
    data = bytearray(weights_bytes(NET, tensors))
    place = 20 + 4 * (3 * 4)  # the first variance of layer 0
    data[place : place + 4] = struct.pack("<f", value)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"values that no trained network has, in 1 of 29 tensors") as caught:
        read_weights(path, NET)
    assert re.search(rf"layer 0 \[convolutional\], line 7: layers.0.bn.running_var: 1 of 4 .*{told}", str(caught.value))


def test_what_cannot_be_written() -> None:
    tensors = numbers(NET)
    del tensors["layers.2.bn.bias"]
    tensors["layers.0.conv.weight"] = tensors["layers.0.conv.weight"][:2]
    tensors["layers.8.conv.bias"][3] = np.nan
    with pytest.raises(ModelError, match="3 of 29 tensors are unfit") as caught:
        weights_bytes(NET, tensors)
    assert caught.value.problems == (
        "layers.0.conv.weight: expected shape (4, 3, 3, 3), got (2, 3, 3, 3)", "layers.2.bn.bias: missing",
        "layers.8.conv.bias: 1 of 24 values are not finite numbers",
    )  # fmt: skip
    for layers in (0, 17):
        with pytest.raises(ModelError, match=f"layers: expected 1 to 16, got {layers}"):
            weights_bytes(NET, numbers(NET), layers=layers)


def onnx_start() -> bytes:
    return b"\x08\x08\x12\x07pytorch\x1a\x051.0.0" + bytes(200)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"\0\0\0\0\2\0\0\0\0\0", "it has 10 bytes"),
        (Header().as_bytes(), "a header and no numbers"),
        (Header().as_bytes() + b"abc\0\0", "no whole number of floats"),
        (b"<!DOCTYPE html>\n<html><head></head></html>", "an HTML page"),
        (b"\n <html lang='en'>" + "ü".encode() * 9, "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
        (b"[net]\nwidth=416\n", "it is a cfg"),
        (b"person\ncar\n" * 3, "a text file"),
        (onnx_start(), "an ONNX model"),
        (b"\x1c\0\0\0TFL3" + bytes(100), "a TensorFlow Lite model"),
        (b"\x80\x02}q\x00." + bytes(30), r"a torch file \(.pth, .pt\)"),
        (b"PK\x03\x04" + bytes(40), "damaged or cut short"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "a JPEG image"),
        (b"\x1f\x8b\x08" + bytes(41), "a gzip archive"),
        (struct.pack("<3i", 77, -5, 3) + bytes(40), "to begin with a version such as 0.2.0, got 77.-5.3"),
    ],
)
def test_what_is_no_weights_file_is_called_what_it_is(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "yolov3-tiny.weights"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=told):
        read_weights(path, NET)


def test_torch_and_safetensors_files_in_its_place(tmp_path: Path) -> None:
    """A .pth given to darknet's reader was the whole hunt of diary 002 for nan at layer 0."""
    path = tmp_path / "best.weights"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="it is a torch file") as caught:
        read_weights(path, NET)
    assert caught.value.hint == "its name with the ending .pth: best.pth"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="it is a torch file"):
        read_weights(path, NET)
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(ModelError, match="it is a safetensors file"):
        read_weights(path, NET)
    with pytest.raises(ModelError, match=r"no weights at .*nowhere\.weights"):
        look(tmp_path / "nowhere.weights", NET)
    with pytest.raises(ModelError, match="it is a folder"):
        look(tmp_path, NET)


def test_which_files_are_meant_for_darknet(tmp_path: Path) -> None:
    assert is_weights(tmp_path / "a.weights")
    assert is_weights(tmp_path / "a.backup")
    assert is_weights(tmp_path / "darknet53.conv.74")
    assert cut_of(tmp_path / "yolov3-tiny.conv.15") == 15
    assert cut_of(tmp_path / "conv.15.weights") is None
    assert not is_weights(tmp_path / "nothing.pth")
    assert is_weights(put(tmp_path / "named_otherwise.pth", NET))
    torch.save({"a": torch.zeros(9)}, tmp_path / "a.pth")
    assert not is_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("header", [Header(0, 1, 0, 5), Header(1001, 0, 0, 5), Header(0, 1000, 0, 5)])
def test_old_headers_have_32_bits(header: Header) -> None:
    assert len(header.as_bytes()) == 16
    assert Header.of(header.as_bytes() + bytes(4)) == header


@given(st.integers(0, 9), st.integers(0, 99), st.integers(0, 999), st.integers(0, 2**31 - 1))
def test_headers_there_and_back(major: int, minor: int, revision: int, seen: int) -> None:
    header = Header(major, minor, revision, seen)
    assert Header.of(header.as_bytes() + bytes(4)) == header
    assert header.plausible


def test_memory_of_a_file_is_taken_once(tmp_path: Path) -> None:
    file = read_weights(put(tmp_path / "a.weights", NET), NET)
    bases = {id(tensor.base if tensor.base is not None else tensor) for tensor in file.tensors.values()}
    assert len(bases) == 1
    assert all(tensor.flags.writeable for tensor in file.tensors.values())  # torch takes them as they are


def test_a_detector_answers_alike_after_its_file(tmp_path: Path) -> None:
    """Through .weights and back: the norms' statistics and all."""
    from onestage.models.darknet.files import as_weights
    from onestage.models.weights import load_detector, start_from

    torch.manual_seed(3)
    first = models.build("darknet", 3, cfg=TOY)
    for name, tensor in first.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 2)
    (tmp_path / "toy.weights").write_bytes(as_weights(NET, first.state_dict(), Header()))
    (tmp_path / "toy.cfg").write_text(TOY)
    second = models.build("darknet", 3, cfg=TOY)
    report = start_from(second, str(tmp_path / "toy.weights"))
    assert (len(report.loaded), report.skipped, report.initialised) == (29, (), ())
    third = load_detector(tmp_path / "toy.weights", str(tmp_path / "toy.cfg"), ("a", "b", "c"))
    assert third.options["cfg"].startswith("[net]")
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = first.eval()(image)
        for network in (second.eval(), third.detector):
            for one, two in zip(network(image), wanted, strict=True):
                assert torch.equal(one, two)
