"""The keys of a cfg that darknet knows, and why some of them are not followed in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """A line of the cfg that is not followed, or not quite: where it stands, what it says, why not."""

    key: str
    line: int
    value: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.key}={self.value}: {self.why}"


_MEMORY = "a matter of darknet's memory or speed, which changes no result: nothing to follow"
_OTHER = "belongs to other tasks than detection in darknet, and does nothing in detection there either"
_NO_AUGMENTATION = "not done: the policy `darknet` has jitter, hue, saturation, exposure and flip"
_REJECTS = "not done: no truth is left out by its loss; the recorder names the images that spike"

# Key → the value that changes nothing, and why another is not followed.
NET_TOLD: Mapping[str, tuple[float, str]] = {
    "angle": (0, _OTHER), "aspect": (1, _OTHER), "max_crop": (-1, _OTHER), "min_crop": (-1, _OTHER),
    "center": (0, _OTHER), "notruth": (0, _OTHER), "hinge": (0, _OTHER),
    "label_smooth_eps": (0, "of classifiers; in a [yolo] it softens the classes"),
    "mosaic_bound": (0, _NO_AUGMENTATION), "mixup": (0, _NO_AUGMENTATION), "cutmix": (0, _NO_AUGMENTATION),
    "blur": (0, _NO_AUGMENTATION), "gaussian_noise": (0, _NO_AUGMENTATION),
    "dynamic_minibatch": (0, "not done: a batch has the same number of images at every input size"),
    "weights_reject_freq": (0, _REJECTS), "equidistant_point": (0, _REJECTS),
    "badlabels_rejection_percentage": (0, _REJECTS), "num_sigmas_reject_badlabels": (0, _REJECTS),
    "adversarial_lr": (0, "not done: there is no adversarial training"),
    "attention": (0, "not done: there is no adversarial training"),
    "contrastive": (0, "not done: there is no contrastive training"),
    "contrastive_jit_flip": (0, "not done: there is no contrastive training"),
    "contrastive_color": (0, "not done: there is no contrastive training"),
    "unsupervised": (0, "not done: there is no unsupervised training"),
    "time_steps": (1, "not done: pictures come one by one, not as sequences"),
    "track": (0, "not done: pictures come one by one, not as sequences"),
    "augment_speed": (2, "not done: pictures come one by one, not as sequences"),
    "sequential_subdivisions": (-1, "not done: pictures come one by one, not as sequences"),
    "seq_scales": (1, "not done: pictures come one by one, not as sequences"),
    "sgdr_mult": (2, "warm restarts are not there"),
    "try_fix_nan": (0, "not so: guard.nan says what is done where a loss or gradient is not finite"),
    "loss_scale": (1, "chosen by itself with precision=fp16; other precisions need none"),
    "clip": (0, "not done: darknet's clip limits weights, the key clip here limits the gradient's norm"),
    "use_cuda_graph": (0, _MEMORY), "optimized_memory": (0, _MEMORY), "workspace_size_limit_MB": (-1, _MEMORY),
    "max_chart_loss": (-1, "the height of darknet's chart; the report's figures choose their own"),
    "seen": (0, "belongs into a .weights file: a run counts its own images"),
    "max_epochs": (-1, "darknet does not read it: max_batches is the length"),
    "inputs": (-1, "follows from width, height and channels"),
}  # fmt: skip
_NET_FOLLOWED = (
    "batch", "subdivisions", "width", "height", "channels", "learning_rate", "momentum", "decay", "adam", "B1", "B2",
    "eps", "burn_in", "power", "policy", "steps", "scales", "step", "scale", "gamma", "learning_rate_min", "sgdr_cycle",
    "max_batches", "saturation", "exposure", "hue", "flip", "letter_box", "mosaic", "ema_alpha", "resize_step",
)  # fmt: skip
NET_KNOWN = (*_NET_FOLLOWED, *NET_TOLD)

_TRACKED = "of darknet's tracking: nothing to follow"
HEAD_TOLD: Mapping[str, tuple[float, str]] = {
    "max_delta": (-1, "not done: no error is cut; clip limits the gradient of a step"),
    "focal_loss": (0, "not done: the class part is not focal"),
    "objectness_smooth": (0, "not done: objectness learns 1 at its truths"),
    "counters_per_class": (-1, "not done: all classes weigh the same"),
    "delta_normalizer": (1, "not done: loss.box, loss.obj and loss.cls weigh the parts"),
    "iou_thresh_kind": (-1, "iou is what boxes and truths are compared by"),
    "nms_kind": (-1, "not so: suppression is greedy within a class, at the IoU that validation.iou says"),
    "beta_nms": (0.6, "not so: suppression is greedy within a class, at the IoU that validation.iou says"),
    "map": (-1, "not done: classes are those of the data"),
    "show_details": (-1, "of darknet's printed lines"),
    "embedding_layer": (-1, _TRACKED), "track_history_size": (-1, _TRACKED), "sim_thresh": (-1, _TRACKED),
    "dets_for_track": (-1, _TRACKED), "dets_for_show": (-1, _TRACKED), "track_ciou_norm": (-1, _TRACKED),
    "mask_scale": (1, "not done: there are no masks"), "sqrt": (0, "darknet's [region] does not read it either"),
    "log": (0, "of darknet's printed lines"), "classfix": (0, "not done"),
    "tree": (-1, "not done: classes are no tree"),
    "bias_match": (1, "not so: the anchors' own shapes decide which answers"),
}  # fmt: skip
# Words that mean what is done here.
HARMLESS: Mapping[str, tuple[str, ...]] = {"nms_kind": ("default", "greedynms"), "iou_thresh_kind": ("iou",)}
HEAD_KNOWN = (
    "mask", "anchors", "num", "classes", "jitter", "ignore_thresh", "truth_thresh", "iou_thresh", "iou_loss",
    "iou_normalizer", "obj_normalizer", "cls_normalizer", "max", "random", "scale_x_y", "new_coords",
    "label_smooth_eps", "coords", "softmax", "absolute", "background", "thresh", "coord_scale", "class_scale",
    "stopbackward", "resize",
    "object_scale", "noobject_scale", "rescore", *HEAD_TOLD,
)  # fmt: skip

# Of any layer.
LAYER_TOLD: Mapping[str, tuple[float, str]] = {
    "dontload": (0, "weights= says what is loaded; the report of the run lists every tensor"),
    "dontloadscales": (0, "weights= says what is loaded; the report of the run lists every tensor"),
    "dontsave": (0, "all weights are saved"),
    "train_only_bn": (0, "not done; freeze with patterns such as layers.*.conv.* leaves the norms alone to learn"),
    "burnin_update": (0, "not done: every layer learns from the first step"),
    "onlyforward": (0, "not done: freeze names what does not learn"),
}  # fmt: skip
