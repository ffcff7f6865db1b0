"""Trains one-stage object detectors and tells why they work or fail."""

from importlib import import_module

# Name → the module it comes from, imported when the name is first used, so that `import onestage` costs nothing.
_FROM = {
    "Detector": "onestage.api",
    "Comparison": "onestage.analysis.comparing",
    "Evaluation": "onestage.evaluation",
    "Prediction": "onestage.deploy.predict",
    "Run": "onestage.experiments.run",
    "anchors": "onestage.training.anchors",
    "compare": "onestage.analysis.comparing",
    "evaluate": "onestage.evaluation",
    "judge_detections": "onestage.analysis.judging",
    "open_dataset": "onestage.data.opening",
    "replay": "onestage.runs",
    "resume": "onestage.runs",
}

__all__ = [
    "Comparison", "Detector", "Evaluation", "Prediction", "Run", "__version__", "anchors", "compare", "evaluate",
    "judge_detections", "open_dataset",
]  # fmt: skip


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onestage")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _FROM:
        raise AttributeError(f"module 'onestage' has no attribute {name!r}; it has {', '.join(_FROM)}")
    try:
        found: object = getattr(import_module(_FROM[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("torch", "lightning_fabric"):
            raise
        raise ModuleNotFoundError(
            f"onestage.{name} needs {missing}, which is not installed: pip install 'onestage[train]'", name=missing
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM, "__version__"})
