"""Cfgs, options and weights that nothing can be made of: each is refused in words, none with a traceback."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from onestage import models
from onestage.errors import ModelError, OnestageError
from onestage.models.darknet.building import MOST, architecture
from onestage.models.darknet.cfg import Cfg, parse
from onestage.models.darknet.settings import settings as settings_of
from onestage.models.weights import as_safetensors, load_detector
from toy_cfg import TOY

TRAINED = TOY.replace(
    "[net]",
    "[net]\nlearning_rate=0.001\nbatch=8\nsubdivisions=2\nmax_batches=20\npolicy=steps\nsteps=5,10\nscales=.1,.1\n"
    "saturation=1.5\nexposure=1.5\nhue=.1\nburn_in=4\nmomentum=.9\ndecay=.0005",
).replace("[yolo]", "[yolo]\nrandom=1\njitter=.3\nscale_x_y=1.05\niou_normalizer=.07\nlabel_smooth_eps=0.1\nmax=90")
WORDS = (
    "", "-1", "0", "nan", "inf", "-inf", "1e999", "1e30", "0x10", "1_0", "٣", "½", "-0.0", "1,2", "1,,2", ",", "=", "[",
    "2147483647", "1000000000", "99999999999999999999", "9" * 5000, "1.5", "-999", "true", "\x00", "é",
)  # fmt: skip


def said(text: str) -> str:
    def all_of(cfg: Cfg) -> None:
        architecture(cfg)
        settings_of(cfg)

    with pytest.raises(ModelError) as told:
        all_of(parse(text))
    return "\n".join([told.value.message, *told.value.problems])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from((*WORDS, "delete", "double"))), min_size=1, max_size=3)
)
def test_a_changed_cfg_is_built_or_refused_and_never_more(changes: list[tuple[int, str]]) -> None:
    lines = TRAINED.splitlines()
    for at, word in changes:
        at %= len(lines)
        if word == "delete":
            del lines[at]
        elif word == "double":
            lines.insert(at, lines[at])
        else:
            lines[at] = f"{lines[at].partition('=')[0]}={word}"
    try:
        cfg = parse("\n".join(lines))
        assert parse(cfg.text()).text() == cfg.text()
        architecture(cfg)
        settings_of(cfg)
    except OnestageError:
        pass


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("scale_x_y=1.05", "scale_x_y=nan", "scale_x_y: expected a number, got 'nan'"),
        ("scale_x_y=1.05", "scale_x_y=-1", "scale_x_y: expected a number from 1 to 10, got -1"),
        ("learning_rate=0.001", "learning_rate=inf", "learning_rate: expected a number, got 'inf'"),
        ("random=1", "random=1e999", "random: expected a number, got '1e999'"),
        ("filters=8", "filters=1000000000", f"expected a network of {MOST:,} numbers at most"),
        ("filters=8", "filters=1_0", "filters: expected a whole number of 32 bits, got '1_0'"),
        ("filters=8", "filters=" + "9" * 30, "filters: expected a whole number of 32 bits"),
        ("width=96", "width=1000000000", "width: expected 32 to 4096 pixels, got 1000000000"),
        ("max_batches=20", "max_batches=-1", "max_batches: expected 1 or more, got -1"),
        ("stride=2\n", "stride=0\n", "filters, size, stride and groups must be at least 1"),
        ("classes=3", "classes=0", "expected classes from 1 on"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_by_line(old: str, new: str, words: str) -> None:
    assert old in TRAINED
    told = said(TRAINED.replace(old, new))
    assert words in told
    assert "line " in told


def test_weights_of_the_loss_below_zero_are_refused() -> None:
    with pytest.raises(ModelError, match="iou_normalizer: expected a number from 0 on, got -1"):
        models.build("darknet", 3, cfg=TRAINED.replace("iou_normalizer=.07", "iou_normalizer=-1"))


@pytest.mark.parametrize("masks", [5, True, "x", [], [[0]], [["a"], [0]], [[0], None], [[True], [0]], [[0], [99]], {}])
def test_masks_of_any_kind_are_refused_in_words(masks: object) -> None:
    with pytest.raises(ModelError, match="masks: expected 2 lists of anchors 0 to 5, one for each head"):
        models.build("yolov3-tiny", 2, (64, 64), masks=masks)


def test_a_mask_names_each_anchor_once() -> None:
    with pytest.raises(ModelError) as told:
        models.build("yolov3-tiny", 2, (64, 64), masks=[[0, 0], [1]])
    assert "anchors, each once, got classes=2 and anchors 0, 0" in told.value.problems[0]


@pytest.mark.parametrize("anchors", [5, True, "x", {}, [1, 2], [[1, 2]], [[1, float("inf")], [1, 2]], [[0, 1], [1, 2]]])
def test_anchors_of_any_kind_are_refused_in_words(anchors: object) -> None:
    with pytest.raises(ModelError, match=r"anchors: expected at least 2 pairs \[width, height\]"):
        models.build("yolov3-tiny", 2, (64, 64), anchors=anchors)


def test_an_odd_count_of_images_is_told_beside_the_version(tmp_path: Path) -> None:
    (tmp_path / "a.weights").write_bytes(struct.pack("<iiiq", 0, 2, 5, -1) + bytes(400))
    with pytest.raises(ModelError, match=r"got 0\.2\.5 and -1 images seen"):
        models.build("darknet", 3, cfg=TOY).read(tmp_path / "a.weights")


CARD = {"model": "darknet", "classes": ["a", "b", "c"], "size": [96, 64], "options": {"cfg": TOY}, "fit": "squash"}


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("{", "expected names and values"), ("[]", "expected names and values"), ("null", "expected names and values"),
        ("{}", "model: expected a name, got None"), ({"classes": 5}, "classes: expected a list of names, got 5"),
        ({"size": [96]}, "size: expected [width, height] in pixels, got [96]"), ({"size": None}, "size: expected"),
        ({"options": None}, "options: expected a mapping, got None"), ({"model": 5}, "model: expected a name, got 5"),
        ({"fit": "x"}, "fit: expected squash, letterbox or native, got 'x'"), ({"scale": "1"}, "scale: expected"),
    ],
)  # fmt: skip
def test_a_file_of_ours_with_a_changed_card_is_refused(card: object, words: str, tmp_path: Path) -> None:
    text = card if isinstance(card, str) else json.dumps({**CARD, **card})  # type: ignore[dict-item]
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"a": torch.zeros(1)}, metadata={"onestage": text}))
    with pytest.raises(ModelError, match="does not say rightly") as told:
        load_detector(path)
    assert words in "\n".join(told.value.problems)


def test_class_names_that_stand_twice_are_refused(tmp_path: Path) -> None:
    detector = models.build("darknet", 3, cfg=TOY)
    (tmp_path / "a.pt").write_bytes(b"")
    torch.save(detector.state_dict(), tmp_path / "a.pt")
    (tmp_path / "toy.cfg").write_text(TOY)
    (tmp_path / "a.names").write_text("a\na\nb\n")
    with pytest.raises(ModelError, match="class names must differ, got a more than once"):
        load_detector(tmp_path / "a.pt", str(tmp_path / "toy.cfg"), [str(tmp_path / "a.names")])
    assert as_safetensors(detector, ("a", "b", "c"), {"cfg": TOY})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("filters=8", "filtres=8", "filtres: unknown key (did you mean 'filters'?)"),
        ("stride=2\n", "strid=2\n", "strid: unknown key (did you mean 'stride'?)"),
        ("activation=leaky", "Activation=leaky", "Activation: unknown key (did you mean 'activation'"),
        ("mask=", "maks=", "maks: unknown key (did you mean 'mask'?)"),
        ("layers=", "layer=", "layer: unknown key (did you mean 'layers'?)"),
        ("from=-2", "from=-2\nalpha=0.5", "alpha=0.5 is not supported"),
        ("[maxpool]", "[maxpool]\nstride_x=2", "one stride for both sides is supported"),
    ],
)
def test_a_misspelt_key_of_a_layer_is_refused_and_not_a_default(old: str, new: str, words: str) -> None:
    assert old in TOY
    with pytest.raises(ModelError) as told:
        architecture(parse(TOY.replace(old, new)))
    assert words in "\n".join(told.value.problems)


def test_sizes_beyond_all_recipes_are_refused_at_once() -> None:
    from onestage.training.multiscale import problems
    from onestage.training.recipe import MultiScale

    told = problems(MultiScale(high=1e9), models.build("darknet", 3, cfg=TOY))
    assert told == ["multiscale.high: 1e+09 of 96 gives sides above 4096 pixels; expected 42.67 or less"]


def test_a_part_without_layers_is_told_as_such() -> None:
    from onestage.training.loop.freezing import problems_with

    detector = models.build("darknet", 3, cfg=TOY)
    detector.parts = lambda: {"neck": torch.nn.ModuleList(), "heads": detector.layers}  # type: ignore[method-assign]
    assert problems_with(detector, ["neck"]) == [
        "freeze: neck has nothing to learn in this network; its parts that do: heads"
    ]


@pytest.mark.parametrize(
    ("loss", "idle"),
    [
        ("darknet", ["ratio"]),
        ("ratio", ["ignore", "truth", "also", "box"]),
        ("per-scale", ["truth", "also", "box", "ratio"]),
    ],
)
def test_options_of_another_loss_are_told_to_have_no_effect(loss: str, idle: list[str]) -> None:
    asked = {"ignore": 0.5, "truth": 0.9, "also": 0.5, "box": "mse", "ratio": 3.0, "near": 0.4, "most": 5}
    detector = models.build("darknet", 3, cfg=TOY, loss=loss, **asked)
    assert [problem.split(":")[0] for problem in detector.idle({"loss": loss, **asked})] == [
        f"options.{n}" for n in idle
    ]
    assert detector.idle(dict.fromkeys(asked)) == []
    assert models.build("darknet", 3, cfg=TOY, ratio=None).options.ratio == 4.0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("learning_rate=0.001", "learning_rate=0", "line 3, learning_rate: expected a number above 0, got 0"),
        ("momentum=.9", "momentum=2", "momentum: expected a number from 0 to 0.999999, got 2"),
        ("decay=.0005", "decay=-1", "decay: expected a number from 0 on, got -1"),
        ("hue=.1", "hue=3", "hue: expected a number from 0 to 0.5, got 3"),
        ("hue=.1", "power=-3", "power: expected a number above 0, got -3"),
        ("hue=.1", "adam=1\nB1=5", "B1: expected a number from 0 to 0.999999, got 5"),
        ("jitter=.3", "jitter=3", "jitter: expected a number from 0 to 0.999999, got 3"),
        ("hue=.1", "resize_step=0", "resize_step: expected 1 or more, got 0"),
        ("random=1", "random=1e30", "random: expected a number from 0 to 10, got 1e+30"),
        ("label_smooth_eps=0.1", "label_smooth_eps=1", "label_smooth_eps: expected a number from 0 to 0.999, got 1"),
    ],
)  # fmt: skip
def test_what_a_recipe_would_refuse_of_a_cfg_is_refused_by_its_line(old: str, new: str, words: str) -> None:
    assert old in TRAINED
    assert words in said(TRAINED.replace(old, new))


@pytest.mark.parametrize(
    ("more", "fit"),
    [("", "letterbox"), ("letter_box=0", "squash"), ("letter_box=1\nmosaic=1", "letterbox"), ("mosaic=1", "squash")],
)  # fmt: skip
def test_images_come_as_the_darknet_of_the_cfg_brings_them(more: str, fit: str) -> None:
    text = (
        TOY.replace("scale_x_y=1.1\n", "")
        .replace("mish", "leaky")
        .replace("groups=2\n", "")
        .replace("[net]", f"[net]\n{more}")
    )
    assert settings_of(parse(text)).keys.get("fit", "letterbox") == fit
    assert models.model_class("darknet").fit_for({"cfg": text}) == fit
    assert models.model_class("yolov4-tiny").fit_for({}) == "squash"


def test_two_networks_at_once_and_names_of_no_file_are_refused() -> None:
    for keys in ({"options.cfg": "b.cfg"}, {"options": {"cfg": "b.cfg"}}):
        with pytest.raises(ModelError, match=r"model=a\.cfg and options\.cfg='b\.cfg' are two networks"):
            models.named({"model": "a.cfg", **keys})
    assert models.named({"model": "a.cfg", "options.cfg": "a.cfg"})["model"] == "darknet"
    with pytest.raises(ModelError, match=r"no cfg at .*null byte"):
        models.build("a\0b.cfg", 3)


def test_a_safetensors_file_is_known_whatever_its_length_begins_with(tmp_path: Path) -> None:
    from onestage.models.darknet.header import kind_of

    start = (0x0480).to_bytes(8, "little") + b'{"a":'  # 80 04, as a pickle begins
    assert kind_of(tmp_path / "a.weights", start)[0] == "a safetensors file"  # type: ignore[index]
    assert "torch" in kind_of(tmp_path / "a.weights", b"\x80\x02" + bytes(40))[0]  # type: ignore[index]


@pytest.mark.parametrize(("fit", "told"), [("squash", False), ("letterbox", True)])
def test_weights_for_darknet_say_where_it_brings_images_otherwise(fit: str, told: bool, tmp_path: Path) -> None:
    from onestage.models.conversion import converted

    path = tmp_path / "a.safetensors"
    path.write_bytes(as_safetensors(models.build("darknet", 3, cfg=TOY), ("a", "b", "c"), {"cfg": TOY}, fit))
    what = converted(path, tmp_path / "b.weights")[tmp_path / "b.cfg"].what
    assert ("mind: it learnt with fit=letterbox, and the darknet of this cfg has squash" in what) is told
