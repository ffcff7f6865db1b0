"""Cfgs read, built into layers, changed and written back; what cannot be is told with layer and line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.errors import ModelError
from onestage.models.darknet.building import architecture
from onestage.models.darknet.cfg import parse, read
from onestage.models.darknet.changed import changed
from onestage.models.darknet.layers import Convolution, Head, MaxPool, Route, Shortcut
from onestage.models.darknet.plans import PLANS, plan
from toy_cfg import TOY

WORD = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
VALUE = st.from_regex(r"[0-9a-z.,\-]{1,10}", fullmatch=True)


def layer_of(kind: str, **options: object) -> str:
    return "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in options.items())])


def trouble(*blocks: str) -> str:
    """All that is wrong with a cfg of these blocks."""
    with pytest.raises(ModelError) as caught:
        architecture(parse("[net]\nwidth=64\nheight=64\n" + "\n".join(blocks)))
    return "\n".join([caught.value.message, *caught.value.problems])


@given(st.lists(st.tuples(WORD, st.dictionaries(WORD, VALUE, max_size=4)), min_size=1, max_size=5))
def test_what_is_written_is_read_again(sections):
    text = "[net]\nwidth=32\n" + "\n".join(layer_of(kind, **options) for kind, options in sections)
    cfg = parse(text)
    again = parse(cfg.text())
    assert [(one.kind, dict(one.options)) for one in again.layers] == sections
    assert parse(again.text()).text() == again.text()


def test_lines_and_indices_are_told():
    cfg = parse(TOY)
    lines = TOY.splitlines()
    yolo = lines.index("[yolo]") + 1
    assert cfg.layers[9].title == f"layer 9 [yolo], line {yolo}"
    assert cfg.layers[9].at("classes") == f"layer 9 [yolo], line {lines.index('classes=3') + 1}, classes"
    assert cfg.layers[9].at("absent") == f"layer 9 [yolo], line {yolo}, absent"


def test_blanks_comments_and_doubled_options():
    cfg = parse("; first\n[net]\n width = 32 # pixels\nbatch=1\nbatch=64\n[ yolo ]\nanchors = 1,2,  3,4\n")
    assert cfg.net.number("width", 0) == 32
    assert cfg.net.number("batch", 0) == 1  # darknet's option_find takes the first
    assert cfg.notes == ("line 5: batch=64 has no effect: line 4 says 1",)
    assert cfg.layers[0].reals("anchors") == (1, 2, 3, 4)


def test_the_missing_comma_of_diary_004_is_told():
    section = parse("[net]\n[yolo]\nanchors=39,30  74,69, 91,199\n").layers[0]
    with pytest.raises(ModelError) as caught:
        section.reals("anchors")
    assert caught.value.message == (
        "layer 0 [yolo], line 3, anchors: expected numbers with commas between, got '30  74'"
    )
    assert "comma" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no section"), ("[net]\n", "[net] alone"), ("[yolo]\n[net]\n", "expected [net] first, got [yolo]"),
        ("[net]\nwidth\n[yolo]\n", "line 2: expected key=value, got 'width'"), ("width=3\n[net]\n[a]\n", "line 1"),
        ("[net\n[a]\n", "line 1: expected [name]"),
    ],
)  # fmt: skip
def test_what_is_no_cfg(text, words):
    with pytest.raises(ModelError) as caught:
        parse(text)
    assert words in "\n".join(caught.value.problems)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="no cfg at"):
        read(tmp_path / "no.cfg")


def test_the_toy_network():
    net = architecture(parse(TOY))
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds == [
        "Convolution", "MaxPool", "Convolution", "Convolution", "Shortcut", "MaxPool", "MaxPool", "Convolution",
        "Convolution", "Head", "Route", "Convolution", "Upsample", "Route", "Convolution", "Head",
    ]  # fmt: skip
    assert [head.shape.stride for head in net.heads] == [16, 8]
    assert net.heads[1].own == ((6, 9), (12, 8), (16, 20))
    assert [layer.head for layer in net.convolutions] == [False, False, False, False, True, False, True]
    assert isinstance(net.layers[3], Convolution)
    assert net.layers[3].groups == 2
    assert net.layers[3].kernel_floats == 8 * 4 * 9
    assert isinstance(net.layers[6], MaxPool)
    assert net.layers[6].padding == 1
    assert isinstance(net.layers[4], Shortcut)
    assert isinstance(net.layers[13], Route)
    assert net.layers[13].layers == (12, 4)
    assert net.saved == {2, 4, 7, 12}
    assert net.trunk == 5
    assert net.grids((96, 64)) == [(6, 4), (12, 8)]


def test_a_size_that_does_not_fit_names_those_that_do():
    with pytest.raises(ModelError) as caught:
        architecture(parse(TOY)).grids((100, 64))
    assert "multiples of 16, got 100x64" in caught.value.message
    assert caught.value.hint == "size=96 or 112"


CONV = layer_of("convolutional", filters=4, size=3, pad=1, activation="leaky", batch_normalize=1)
LINEAR = layer_of("convolutional", filters=8, size=1, activation="linear")
YOLO = layer_of("yolo", mask="0", anchors="4,4", num=1, classes=3)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ((CONV, layer_of("dropout")), "layer 1 [dropout], line 10: layers of this kind are not supported; there are"),
        ((CONV, layer_of("upsampel")), "did you mean 'upsample'"),
        ((layer_of("convolutional", xnor=1),), "layer 0 [convolutional], line 5, xnor: xnor=1 is not supported"),
        ((layer_of("convolutional", filters="four"),), "line 5, filters: expected a whole number of 32 bits"),
        ((layer_of("convolutional", activation="lekay"),), "did you mean 'leaky'"),
        ((CONV, layer_of("shortcut", **{"from": -5})), "-5 names no layer before this one"),
        ((CONV, layer_of("route", layers="-1,7")), "7 names no layer before this one"),
        ((CONV, layer_of("route")), "layers= is missing"),
        ((CONV, LINEAR.replace("=8", "=9"), YOLO), "filters: expected 8, 1 anchors x (5 + 3 classes) of"),
        ((CONV, CONV.replace("=4", "=8"), YOLO), "must be linear and without a norm"),
        ((CONV, LINEAR, YOLO.replace("mask=0", "mask=0,2")), "mask: 2 is none of the 1 anchors"),
        ((CONV, LINEAR, YOLO.replace("num=1", "num=2")), "expected 2 pairs (num=2), got 2 numbers"),
        ((CONV, LINEAR, YOLO + "\nnew_coords=1"), "new_coords=1 (scaled YOLOv4) is not supported"),
        ((CONV,), "no [yolo] and no [region] layer"),
        ((YOLO,), "expected a [convolutional] layer before it"),
        ((CONV, layer_of("route", layers="0", groups=3, group_id=0)), "group 0 of 3 of [4] channels"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_named_with_its_line(blocks, words):
    assert words in trouble(*blocks)


def test_all_problems_at_once():
    told = trouble(layer_of("crop"), layer_of("convolutional", groups=5, filters=7), layer_of("softmax"))
    assert all(word in told for word in ("[crop]", "groups", "[softmax]"))


@pytest.mark.parametrize(
    ("name", "layers", "trunk", "heads", "masks"),
    [
        ("yolov3", 107, 75, (82, 94, 106), ((6, 7, 8), (3, 4, 5), (0, 1, 2))),
        ("yolov3-spp", 114, 75, (89, 101, 113), ((6, 7, 8), (3, 4, 5), (0, 1, 2))),
        ("yolov3-tiny", 24, 13, (16, 23), ((3, 4, 5), (0, 1, 2))),
        ("yolov4-tiny", 38, 27, (30, 37), ((3, 4, 5), (1, 2, 3))),
        ("yolov2-tiny", 16, 13, (15,), ((0, 1, 2, 3, 4),)),
    ],
)
def test_the_named_networks(name, layers, trunk, heads, masks):
    net = architecture(plan(name, 80))
    assert len(net.layers) == layers
    assert net.trunk == trunk
    assert tuple(head.index for head in net.heads) == heads
    assert tuple(head.mask for head in net.heads) == masks


@pytest.mark.parametrize("name", PLANS)
def test_other_classes_and_sizes_change_heads_alone(name):
    cfg = changed(plan(name, 80), classes=6, size=(608, 416))
    one, two = architecture(cfg), architecture(plan(name, 6, (608, 416)))
    assert one.size == two.size == (608, 416)
    assert one.classes == 6
    assert [vars(a) | {"section": 0} for a in one.layers] == [vars(b) | {"section": 0} for b in two.layers]


def test_other_anchors_keep_the_masks_that_share_them_out():
    nine = [[10 + 3 * i, 12 + 5 * i] for i in range(9)]
    net = architecture(changed(plan("yolov3", 2), anchors=nine))
    assert net.heads[0].own == tuple(map(tuple, nine[6:]))
    assert net.heads[2].mask == (0, 1, 2)


def test_anchors_that_no_head_had_are_dealt_out():
    """yolov4-tiny's masks leave the first anchor out; twelve anchors need heads of four."""
    six = [[10 * i, 10 * i] for i in range(1, 7)]
    net = architecture(changed(plan("yolov4-tiny", 2), anchors=six))
    assert [head.mask for head in net.heads] == [(3, 4, 5), (0, 1, 2)]
    twelve = [[10 * i, 10 * i] for i in range(1, 13)]
    net = architecture(changed(plan("yolov3", 2), anchors=twelve))
    assert [head.mask for head in net.heads] == [(8, 9, 10, 11), (4, 5, 6, 7), (0, 1, 2, 3)]
    assert [one.shape.channels for one in net.convolutions if one.head] == [28, 28, 28]


def test_anchors_of_a_region_are_cells_in_the_cfg_and_pixels_here():
    net = architecture(plan("yolov2-tiny", 80))
    assert net.heads[0].anchors[0] == pytest.approx((0.57273 * 32, 0.677385 * 32))
    again = architecture(changed(plan("yolov2-tiny", 80), anchors=[[32, 16]] * 5))
    assert again.heads[0].section.options["anchors"].startswith("1,0.5")
    assert again.heads[0].own[4] == (32, 16)


@pytest.mark.parametrize(
    ("anchors", "masks", "words"),
    [
        ([[1, 2]], None, "expected at least 2 pairs"), ([[1, 2], [3, 0]], None, "got [3, 0]"),
        ([[1, 2], 5], None, "got 5"), ([[1, 2], [3, "4"]], None, "'4'"), ([[1, 2], [3, True]], None, "True"),
        (None, [[0]], "masks: expected 2 lists"), (None, [[0], [9]], "anchors 0 to 6"), (None, [[0], []], "masks"),
    ],
)  # fmt: skip
def test_anchors_and_masks_that_cannot_be(anchors, masks, words):
    with pytest.raises(ModelError) as caught:
        changed(parse(TOY), anchors=anchors, masks=masks)
    assert words in caught.value.message


def test_heads_must_list_the_same_anchors():
    with pytest.raises(ModelError) as caught:
        architecture(parse(TOY.replace("anchors=4,5,", "anchors=4,6,", 1)))
    assert "different anchors" in caught.value.problems[0]


def test_every_head_is_a_head():
    assert all(isinstance(head, Head) for head in architecture(plan("yolov3", 1)).heads)
