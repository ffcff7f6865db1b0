"""The verbs in Python: a Detector that trains, judges and predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from onestage import models
from onestage.data.images import Fit
from onestage.data.one_set import open_set
from onestage.deploy.engines import check_engine, start_engine
from onestage.deploy.engines.engine import Engine
from onestage.deploy.engines.quantised import shown_for_int8
from onestage.deploy.predict import Prediction, Skipped, predict
from onestage.deploy.sources import Images, images_of
from onestage.errors import UsageError
from onestage.evaluation import Evaluation
from onestage.experiments.run import Run
from onestage.experiments.run_weights import weights_of
from onestage.experiments.storage import write_bytes
from onestage.models.asked import class_names, input_size, model_and_options
from onestage.models.detector import Detector as Network
from onestage.models.inference import marks_of, refuse_one_size, shown_selection
from onestage.models.published import PUBLISHED, published
from onestage.models.weights import as_safetensors, load_detector, start_from
from onestage.report.batch_sheet import write_batch_sheet
from onestage.runs import dotted
from onestage.training.devices.machine import choose_device
from onestage.training.dry_run import DryRun, dry_run
from onestage.training.fit import fit
from onestage.training.judging.dataset import judge
from onestage.training.plan import ask, open_data
from onestage.training.recipe import Recipe
from onestage.training.watcher import Watcher


class Detector:
    """A detector by name: `Detector("ssd300", classes=20, pretrained=False)`; its network is `.model`.

    `classes` is a list of names, a number, or None: then they are those of the data it is trained on. `pretrained`
    True starts from ImageNet's backbone, a path or a run from these weights, False at random, None as the model's
    recipe does. `size` is the input in pixels, one number or (width, height); `fit` how images come to it ("squash"
    unless the model's recipe says else), or "native" for images at `scale` times their own pixels, except in training;
    `options` are the model's own (`models.build`). Raises ModelError for an unknown model or weights that do not fit,
    UsageError for a `scale` that has no effect.

        detector = Detector("ssd-lite0")
        run = detector.train(data="trees", epochs=30, optimiser__lr=1e-3)
        print(detector.val().metrics.value("mAP50", "voc10"))
        for found in detector.predict("photos/"):
            print(found.name, found.class_names, found.boxes, found.scores)
    """

    def __init__(
        self, model: str | Path = "ssd-lite0", classes: int | Sequence[str] | None = None, *,
        pretrained: bool | str | Path | None = None, size: int | tuple[int, int] | None = None, fit: Fit | None = None,
        scale: float = 1.0, **options: Any,
    ) -> None:  # fmt: skip
        model, options = model_and_options(model, options)
        usual, kind = models.defaults(model), models.model_class(model)
        told = kind.fit_for(options) if "cfg" in options else usual.get("fit")
        self.fit: Fit = fit or usual.get("validation.fit") or told or kind.default_fit
        if scale != 1 and self.fit != "native":
            raise UsageError(f"scale has no effect on fit={self.fit}", hint="fit=native")
        self.name, self.scale, self.options = model, scale, options
        self.run: Run | None = None
        self._size = input_size(size)
        self._weights = _start(model, pretrained)
        self._named = not isinstance(classes, int)
        self._classes = class_names(classes)
        self._network: Network | None = None
        if self._classes:
            self._network = models.build(model, len(self._classes), self._size, **options)
            start_from(self._network, self._weights)
            self._network.eval()
        self._version = self._written()
        self._running: tuple[tuple[Any, ...], Engine] | None = None  # the last engine, and what it was made from

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": None}  # an engine belongs to this process

    def __repr__(self) -> str:
        what = "classes from the data" if not self._classes else f"{len(self._classes)} classes"
        return f"Detector({self.name!r}, {what})"

    @classmethod
    def load(
        cls, what: str | Path, model: str | None = None, classes: Sequence[str] = (), fit: Fit | None = None,
        scale: float | None = None,
    ) -> Detector:  # fmt: skip
        """The detector of a run (its folder or name; its best weights), of a weights file, or published by name.

        Weights of other programs say nothing of themselves: then `model` and, for most models, `classes` must be
        given, and `fit` where it is not the model's own. Raises UsageError for an unknown run, ModelError for weights
        that are not there or fit no model, and for "native" with a model of one size.
        """
        known = published(what)
        path, run = weights_of(what, PUBLISHED) if known is None else (known.file_for(model), None)
        loaded = load_detector(path, model or (known.model if known else None), classes)
        used = fit or cast(Fit, loaded.fit)
        if used == "native":
            refuse_one_size(loaded.detector)
        if scale is None:
            scale = loaded.scale if used == "native" else 1.0
        detector = cls(loaded.detector.name, fit=used, scale=scale, **loaded.options)
        detector._adopt(loaded.detector, loaded.classes, path, run)
        return detector

    @property
    def model(self) -> Network:
        """The network, a torch module; UsageError while its classes are unknown."""
        if self._network is None:
            raise UsageError(
                "the network is not built yet: its classes are unknown",
                hint=f"Detector({self.name!r}, classes=[…]), or train it first",
            )
        return self._network

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the labels; numbers where only their count was given, empty while unknown."""
        return self._classes

    def save(self, path: str | Path) -> Path:
        """Write the present weights as a safetensors file that `load` and every command take.

        UsageError for a name that does not end in .safetensors, by which readers know it.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            hint = f"{path.stem}.safetensors; `onestage weights convert` makes a .weights file of it"
            raise UsageError(f"{path.name}: expected a name that ends in .safetensors", hint=hint)
        options = self.model.resolved(self.options)  # the text of a cfg, whose file may go
        write_bytes(path, as_safetensors(self.model, self._classes, options, self.fit, scale=self.scale))
        return path

    def train(
        self, data: str | Path, *, root: str | Path | None = None, watcher: Watcher | None = None, **keys: Any
    ) -> Run:
        """Train on `data` (a folder, file or sample's name) and return the run; the detector then has its best weights.

        `keys` are those of the recipe, with `__` for a dot or as mappings: `optimiser__lr=1e-3` is
        `optimiser={"lr": 1e-3}`. It starts from the weights the detector was made with or last trained to. Runs go to
        `root`, by default ./runs or $ONESTAGE_RUNS. Raises RecipeError, DataError, ModelError before anything is
        written, and UsageError where the data has another number of classes than the detector.
        """
        asked = self._asked(data, keys)
        if self._network is not None and self._written() > self._version:
            raise UsageError(
                "the network's weights were changed outside of train", hint="save them: Detector.load(detector.save(…))"
            )
        if not self._named and "classes" not in asked:
            self._same_count(open_data(ask(asked)).classes)
        run = fit(asked, root=None if root is None else Path(root), watcher=watcher)
        path, _ = weights_of(run.folder)
        loaded = load_detector(path)
        self.fit, self.scale, self.options = cast(Fit, loaded.fit), loaded.scale, loaded.options
        self._adopt(loaded.detector, loaded.classes, path, run)
        return run

    def dry_run(self, data: str | Path, *, picture: str | Path | None = None, **keys: Any) -> DryRun:
        """What `train` with the same words would do, and what it would take on this machine; nothing is trained.

        `.plan.recipe` is the complete recipe, `.estimate` the seconds, memory and disk, `.first_batch` the images as
        training would see them, `.findings` what stands in the way. `picture` writes the first batch with its boxes
        and priors as a PNG file. Raises as `train` does before it writes anything, and DivergedError where the loss of
        a first step is not a finite number.
        """
        found = dry_run(self._asked(data, keys))
        if picture is not None:
            write_batch_sheet(Path(picture), found.first_batch, found.title)
        return found

    def val(
        self, data: str | Path | None = None, *, split: str | None = None, protocols: Sequence[str] | None = None,
        score: float | None = None, iou: float | None = None, candidates: int | None = None, most: int | None = None,
        seed: int | None = None, allow_loss: bool = False, batch: int = 16, device: str | None = None,
    ) -> Evaluation:  # fmt: skip
        """Judge the detector on a set of `data`; without it, on the validation images of the run it comes from.

        `split` is "val" (the default), "train", "test", "all" or a set's own name; where only one set is given, `seed`
        splits it. `score` is the floor below which nothing is kept, `iou` that of non-maximum suppression, which looks
        at the `candidates` highest of each class and keeps `most` of an image. What is not given is as in the run the
        detector comes from, or as in the model's recipe. Raises UsageError where no data is known, DataError for a set
        that is not there or cannot be used.
        """
        if data is None and self.run is None:
            raise UsageError("no data to judge on: the detector comes from no run", hint="val(data=…)")
        network = self.model
        recipe = Recipe.recorded(self.run.recipe) if self.run else ask({"model": self.name, "data": str(data)})
        limits = recipe.validation
        dataset = open_set(
            recipe.data if data is None else data, split, classes=self._classes if self._named else None,
            seed=recipe.split_seed if seed is None else seed, allow_loss=allow_loss or recipe.allow_loss,
        )  # fmt: skip
        self._same_count(dataset.classes)
        evaluation, _ = judge(
            network, dataset, protocols or limits.judged_by, score=limits.score if score is None else score,
            iou=limits.iou if iou is None else iou, candidates=limits.candidates if candidates is None else candidates,
            most=limits.most if most is None else most, fit=self.fit, scale=self.scale,
            precision=recipe.precision or "fp32", batch=batch, device=device,
        )  # fmt: skip
        return evaluation

    def predict(
        self, images: Images, *, score: float | None = None, iou: float | None = None, candidates: int | None = None,
        most: int | None = None, batch: int = 8, device: str | None = None, skipped: Skipped | None = None,
        engine: str = "torch", precision: str = "fp32", threads: int | None = None, calibration: Images | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """What is in each image: files, folders, globs, RGB arrays uint8 (H, W, 3), one or several of them, in order.

        Detections have at least `score` (0.4); `iou` (0.45) is the overlap above which the weaker of two of one class
        goes; `candidates` (400) of a class are looked at, `most` (100) of an image kept; a model may have its own.
        Files that cannot be read are told to `skipped(path, why)`, by default as warnings. For more images than memory
        should hold at once see `deploy.predict.predict`. `engine` and what follows are as in `predictor`; int8 without
        `calibration` learns from the images themselves. Raises DataError where a name gives no image.
        """
        wanted, limits = images_of(images), shown_selection(self.name, score, iou, candidates, most)
        learnt = wanted if calibration is None else calibration
        runs = self.predictor(device, engine=engine, precision=precision, threads=threads, calibration=learnt)
        return list(predict(
            runs, wanted, self._classes, self.model.size, self.fit, limits, batch=batch, scale=self.scale,
            skipped=skipped,
        ))  # fmt: skip

    def predictor(
        self, device: str | None = None, *, engine: str = "torch", precision: str = "fp32", threads: int | None = None,
        calibration: Images = (),
    ) -> Engine:  # fmt: skip
        """The network, as it is now, as a function of arrays in one of `deploy.engines.ENGINES`; see `start_engine`.

        Asked again it is the same engine, while the weights and what is asked are the same; int8 alone is made anew.
        `device` is for torch, by default the best there is. Precision int8 learns the range of each layer from up to
        64 images, `calibration`: files, folders or arrays. Raises UsageError for what the engine does not take,
        ModelError where its package is not installed, ExportError where it does not answer like torch.
        """
        check_engine(engine, precision, threads, device)
        place = choose_device(device) if engine == "torch" else device
        if precision == "int8":
            shown = shown_for_int8(calibration, self.model.size, self.fit, self.scale)
            return start_engine(engine, self.model, precision, threads, device=place, calibration=shown)
        made_of = (self.model, self.model.size, marks_of(self.model), engine, precision, threads, place)
        if self._running is None or self._running[0] != made_of:
            self._running = made_of, start_engine(engine, self.model, precision, threads, device=place)
        return self._running[1]

    def _adopt(self, network: Network, names: Sequence[str], path: Path, run: Run | None) -> None:
        self._network, self._classes, self._named = network.eval(), tuple(names), True
        self._size, self._weights, self.run = network.size, str(path), run
        self._version = self._written()

    def _asked(self, data: str | Path, keys: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe's keys, flat with dots: what the detector is, then what the user asks."""
        given = dotted(keys)
        if given.get("model", self.name) != self.name:
            raise UsageError(
                f"model={given['model']}: this detector is {self.name}", hint=f"Detector({given['model']!r})"
            )
        own: dict[str, Any] = {"model": self.name, "data": str(data), "weights": self._weights}
        if self.fit == "native":
            own |= {"validation.fit": self.fit, "validation.scale": self.scale}
        else:
            own |= {"fit": self.fit, "validation.fit": None}
        if self._size is not None:
            own["size"] = list(self._size)
        if self._classes and self._named:
            own["classes"] = list(self._classes)
        if self.options:
            own["options"] = dict(self.options)
        return {**own, **given}

    def _same_count(self, names: Sequence[str]) -> None:
        if len(names) != len(self._classes):
            some = ", ".join(names[:8]) + " …" * (len(names) > 8)
            raise UsageError(
                f"the detector has {len(self._classes)} classes, the data {len(names)}: {some}",
                hint=f"Detector({self.name!r}, classes=[…]) with the names, or without classes to take the data's",
            )

    def _written(self) -> int:
        """How often the weights were written to: torch counts it for every tensor."""
        state = {} if self._network is None else self._network.state_dict(keep_vars=True)
        return sum(tensor._version for tensor in state.values())


def _start(model: str, pretrained: bool | str | Path | None) -> str | None:
    """The recipe's `weights` that `pretrained` means."""
    if pretrained is None:
        default: str | None = models.defaults(model).get("weights", Recipe.model_fields["weights"].default)
        return default
    if isinstance(pretrained, bool):
        return "imagenet" if pretrained else None
    if pretrained == "imagenet" or published(pretrained) is not None:
        return str(pretrained)
    return str(weights_of(pretrained)[0])
