"""Weights in another form: darknet's .weights with cfg and names, or a safetensors file of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from onestage.errors import ModelError, UsageError
from onestage.models.darknet.cfg import Cfg
from onestage.models.darknet.detector import Darknet
from onestage.models.darknet.files import as_weights
from onestage.models.darknet.header import SUFFIXES, Header, cut_of, is_weights, refuse_others
from onestage.models.darknet.settings import fit_of
from onestage.models.weights import Loaded, as_safetensors, load_detector


class Written(NamedTuple):
    """A file to write: its bytes, and what it is in words."""

    data: bytes
    what: str


def converted(
    path: Path, out: Path, model: str | None = None, classes: Sequence[str] = (), layers: int | None = None,
    seen: int = 0,
) -> dict[Path, Written]:  # fmt: skip
    """What to write so that the weights in `path` are there as `out`.

    A name that ends in .safetensors makes a file of ours; one in .weights, .backup or .conv.N one of darknet's, whole
    with the cfg and the names of its classes beside it, or of its first `layers`. A .weights file keeps its header's
    version and `seen`; of others `seen` is given. Raises ModelError for a model that is no network of darknet's, and
    whatever loading raises; UsageError for a name that says otherwise.
    """
    loaded = load_detector(path, model, classes)
    detector, names, options, fit, scale = loaded
    if out.suffix == ".safetensors":
        if layers is not None:
            raise UsageError("layers has no effect on a safetensors file", hint="OUT.weights, or OUT.conv.N")
        data = as_safetensors(detector, names, options, fit, scale=scale)
        return {out: Written(data, f"{detector.name}, {len(names)} classes")}
    layers = _cut(out, layers)
    if not isinstance(detector, Darknet):
        raise ModelError(
            f"{detector.name} is no network of darknet's: it has no .weights", hint=f"{out.stem}.safetensors"
        )
    header = Header(seen=seen)
    if path.suffix != ".safetensors" and is_weights(path):
        given = refuse_others(path)
        header = given if given.wide else Header(seen=given.seen)
    network = detector.architecture
    what = "all layers" if layers is None else f"the first {layers} of {len(network.layers)} layers"
    written = Written(
        as_weights(network, detector.state_dict(), header, layers),
        f"{what}, version {header.version}, {header.seen:,} images seen",
    )
    return {out: written} if layers is not None else {out: written} | _beside(out, loaded, network.cfg)


def refuse_there(out: Path, layers: int | None) -> None:
    """UsageError where a file of a name that would be written is there, or the ending says nothing."""
    if out.suffix != ".safetensors" and out.suffix not in SUFFIXES and cut_of(out) is None:
        raise UsageError(f"{out.name}: expected a name that ends in .weights, .conv.N or .safetensors")
    whole = out.suffix in SUFFIXES and layers is None
    files = [out, *([out.with_suffix(".cfg"), out.with_suffix(".names")] if whole else [])]
    if there := [str(file) for file in files if file.exists()]:
        raise UsageError("files of these names are there already", problems=there, hint="another name for OUT")


def _cut(out: Path, layers: int | None) -> int | None:
    named = cut_of(out)
    if None not in (named, layers) and named != layers:
        raise UsageError(f"{out.name} is a name for the first {named} layers, and layers={layers} is asked for")
    return named if layers is None else layers


def _beside(out: Path, loaded: Loaded, cfg: Cfg) -> dict[Path, Written]:
    """The cfg and the names that darknet needs to run whole weights."""
    net = {"batch": "1", "subdivisions": "1", **cfg.net.options}
    text = replace(cfg, net=replace(cfg.net, options=net)).text()
    names = "".join(f"{name}\n" for name in loaded.classes)
    return {
        out.with_suffix(".cfg"): Written(
            text.encode(),
            f"the network; darknet detector test DATA CFG {out.name} IMAGE{_fit_elsewhere(loaded.fit, cfg)}",
        ),
        out.with_suffix(".names"): Written(names.encode(), f"{len(loaded.classes)} class names"),
    }


def _fit_elsewhere(fit: str, cfg: Cfg) -> str:
    """What to mind where darknet brings images to this network otherwise than it was trained with."""
    theirs = fit_of(cfg)
    if fit == theirs:
        return ""
    return f"; mind: it learnt with fit={fit}, and the darknet of this cfg has {theirs}, so that its scores differ"
