"""The keys of a section that darknet knows; a misspelt one would leave it at a default without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onestage.errors import did_you_mean
from onestage.models.darknet.cfg import Section
from onestage.models.darknet.unfollowed import HEAD_KNOWN, LAYER_TOLD, NET_KNOWN

# What parse_network_cfg of pjreddie's and AlexeyAB's darknet reads of any layer.
_ANY = (
    "learning_rate", "learning_rate_scale", "stopbackward", "dont_update", "show_receptive_field", "truth", "numload",
    "smooth", "clip", *LAYER_TOLD,
)  # fmt: skip
# Keys that would change what a layer computes, with the value that changes nothing.
CONV_OFF = {
    "xnor": "0", "binary": "0", "dilation": "1", "flipped": "0", "dot": "0", "deform": "0", "rotate": "0", "sway": "0",
    "antialiasing": "0", "share_index": "-1000000000", "assisted_excitation": "0", "coordconv": "0", "stretch": "0",
    "stretch_sway": "0", "cbn": "0", "reverse": "0",
}  # fmt: skip
POOL_OFF = {"maxpool_depth": "0", "antialiasing": "0", "maxpool_zero_nonmax": "0"}
SHORTCUT_OFF = {"alpha": "1", "beta": "1"}
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "convolutional": (
        "filters", "size", "stride", "stride_x", "stride_y", "pad", "padding", "groups", "activation",
        "batch_normalize", "bin_output", "angle", "grad_centr", "stream", "wait_stream", *CONV_OFF,
    ),
    "maxpool": ("size", "stride", "stride_x", "stride_y", "padding", "out_channels", *POOL_OFF),
    "upsample": ("stride", "scale"),
    "route": ("layers", "groups", "group_id", "stream", "wait_stream"),
    "shortcut": ("from", "activation", "weights_type", "weights_normalization", *SHORTCUT_OFF),
    "yolo": HEAD_KNOWN, "region": HEAD_KNOWN, "net": NET_KNOWN,
}  # fmt: skip
_SHORT = {"conv": "convolutional", "max": "maxpool", "network": "net"}


def unknown(section: Section) -> Iterator[str]:
    """A sentence for each key of a section that darknet does not know; none for a kind of layer that we do not."""
    known = _KNOWN.get(_SHORT.get(section.kind, section.kind))
    if known is None:
        return
    for key in section.options:
        if key not in known and (section.index is None or key not in _ANY):
            yield f"{section.at(key)}: unknown key{did_you_mean(key, known)}"
