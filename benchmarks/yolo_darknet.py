"""Binaries of darknet, their own timers read while they wait for pictures or train, for benchmarks/yolo.py."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from onestage.models.darknet.binary import weights_bytes
from onestage.models.darknet.detector import Darknet

SCORE = 0.25
Row = dict[str, Any]


def darknet_cfg(detector: Darknet, **net: object) -> str:
    """The network's cfg with a [net] that every program takes, `net` in it."""
    width, height = detector.size
    first = {
        "batch": 1, "subdivisions": 1, "width": width, "height": height, "channels": 3, "momentum": 0.9,
        "decay": 0.0005, "learning_rate": 0.0001, "burn_in": 0, "max_batches": 1000, "policy": "steps",
        "steps": "800,900", "scales": ".1,.1",
    } | net  # fmt: skip
    rest = detector.architecture.cfg.text().partition("\n[")[2]
    return "[net]\n" + "".join(f"{key}={value}\n" for key, value in first.items()) + "\n[" + rest


class DarknetBinary:
    """A darknet that waits for pictures.

    The seconds of each are those it prints, wall time of its network alone, and the CPU time of its process, which a
    busy machine disturbs less, with the reading and writing of pictures; None where the system does not tell.
    """

    def __init__(self, binary: Path, detector: Darknet, jpegs: list[bytes], threads: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        at = Path(self.folder.name)
        (at / "network.cfg").write_text(darknet_cfg(detector))
        state = {name: tensor.numpy() for name, tensor in detector.state_dict().items()}
        (at / "network.weights").write_bytes(weights_bytes(detector.architecture, state))
        (at / "names").write_text("".join(f"class{i}\n" for i in range(detector.classes)))
        (at / "set.data").write_text(f"classes={detector.classes}\nnames=names\n")
        letters = at / "data" / "labels"
        letters.mkdir(parents=True)
        for letter in range(32, 127):  # it draws with pictures of letters, and ends without them
            for size in range(8):
                cv2.imwrite(str(letters / f"{letter}_{size}.png"), np.zeros((4, 4, 3), np.uint8))
        for i, jpeg in enumerate(jpegs):
            (at / f"{i}.jpg").write_bytes(jpeg)
        self.count, self.next = len(jpegs), 0
        words = [str(binary.resolve()), "detector", "test", "set.data", "network.cfg", "network.weights"]
        words += ["-thresh", str(SCORE), "-out", "found", *_quiet(binary)]  # no window
        self.process = subprocess.Popen(
            words, cwd=at, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"},
        )  # fmt: skip
        self._read()

    def seconds(self) -> tuple[float, float | None]:
        """For the next picture: what it prints, what its process took."""
        before = self._spent()
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.next % self.count}.jpg\n".encode())
        self.process.stdin.flush()
        self.next += 1
        told = self._read()
        found = re.search(r"Predicted in ([\d.]+) (milli-)?seconds", told)
        if found is None:
            raise RuntimeError(f"{self.process.args}: no time in {told[-300:]!r}")
        after = self._spent()
        spent = None if before is None or after is None else after - before
        return float(found[1]) / (1000 if found[2] else 1), spent

    def _spent(self) -> float | None:
        """CPU seconds of the process so far."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None

    def _read(self) -> str:
        assert self.process.stdout is not None
        text = b""
        while not text.endswith(b"Image Path: "):
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise RuntimeError(f"{self.process.args} ended: {text[-300:].decode(errors='replace')!r}")
            text += more
        return text.decode(errors="replace")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def _quiet(binary: Path) -> list[str]:
    """The option against windows where the binary knows it; others take it for the name of a picture."""
    return ["-dont_show"] if b"-dont_show" in binary.read_bytes() else []


def darknet_step(binary: Path, detector: Darknet, jpegs: list[bytes], threads: int, steps: int = 3) -> list[float]:
    """Seconds of training steps as the binary prints them, after the first one; [] where it does not train here."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        (at / "backup").mkdir()
        net = {"batch": len(jpegs), "max_batches": steps + 1}
        (at / "network.cfg").write_text(darknet_cfg(detector, **net).replace("random=1", "random=0"))
        for i, jpeg in enumerate(jpegs):
            (at / f"{i}.jpg").write_bytes(jpeg)
            (at / f"{i}.txt").write_text(f"{i % detector.classes} 0.5 0.5 0.3 0.4\n")
        (at / "train.txt").write_text("".join(f"{at}/{i}.jpg\n" for i in range(len(jpegs))))
        (at / "names").write_text("".join(f"class{i}\n" for i in range(detector.classes)))
        (at / "set.data").write_text(
            f"classes={detector.classes}\nnames=names\ntrain=train.txt\nvalid=train.txt\nbackup=backup\n"
        )
        words = [str(binary.resolve()), "detector", "train", "set.data", "network.cfg", "-clear", *_quiet(binary)]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        try:
            done = subprocess.run(words, cwd=at, env=env, capture_output=True, check=False, timeout=600)
        except subprocess.TimeoutExpired:
            return []
        told = re.findall(r"rate, ([\d.]+) seconds, \d+ images", done.stdout.decode(errors="replace"))
        return [float(value) for value in told][1:]


def mapping_of(words: list[str]) -> Mapping[str, Path]:
    """NAME=PATH pairs; the name is by default the folder's that the binary lies in."""
    pairs = {}
    for word in words:
        name, equals, path = word.partition("=")
        path = path if equals else word
        pairs[name if equals else Path(word).resolve().parent.name] = Path(path)
    return pairs


def darknet_rows(
    name: str, threads: int, binaries: dict[str, DarknetBinary], before: list[Row], turns: int
) -> list[Row]:
    """What each binary says of itself, and how many times quicker the best of ours is in each precision, wall time."""
    seconds: dict[str, list[tuple[float, float | None]]] = {word: [] for word in binaries}
    for _ in range(turns + 1):
        for word, binary in binaries.items():
            seconds[word].append(binary.seconds())
    made = []
    for word, taken in seconds.items():
        binaries[word].close()
        ms = {"wall": 1e3 * statistics.median(wall for wall, _ in taken[1:])}
        if spent := [cpu for _, cpu in taken[1:] if cpu is not None]:
            ms["cpu"] = 1e3 * statistics.median(spent)
        best: dict[str, float] = {}
        for row in before:
            precision = row["form"].partition("/")[2]
            if row["part"] == "network" and precision:
                best[precision] = max(best.get(precision, 0.0), ms["wall"] / row["milliseconds"]["wall"])
        made.append({
            "part": "darknet", "model": name, "form": word, "threads": threads, "turns": turns, "milliseconds": ms,
            "ours_times_quicker": best,
        })  # fmt: skip
    return made
