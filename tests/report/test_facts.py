"""What a page says first of a run that was judged by a benchmark's own protocol."""

from __future__ import annotations

import math

from onestage.records import Metric, Metrics
from onestage.report.facts import tiles, verdict
from onestage.report.scores import Scores

WIDER = [Metric("widerface", f"AP{level}", value, n, None, (value - 0.1, value + 0.1))
         for level, value, n in (("easy", 0.81, 194), ("medium", 0.77, 372), ("hard", 0.32, 1081))]  # fmt: skip
AS_FILED = Metric("widerface", "APeasy as filed", 0.8, 194)
VOC = [Metric("voc10", "mAP50", 0.26, 1313), Metric("voc10", "AP50", 0.26, 1313, "face")]


def said(*rows: Metric) -> Scores:
    return Scores(Metrics(rows), 87)


def test_a_benchmarks_scores_come_first() -> None:
    scores = said(*VOC, *WIDER, AS_FILED)
    words = [tile["word"] for tile in tiles(scores)]
    assert words == ["APeasy", "APmedium", "APhard", "mAP50"]
    sentence = "widerface: APeasy 0.81, APmedium 0.77, APhard 0.32 on 87 images, 1,313 faces."
    assert verdict({}, scores, [], ["face"]) == sentence


def test_without_one_it_is_as_before_and_undefined_scores_are_passed_over() -> None:
    undefined = [Metric(row.protocol, row.name, math.nan, 0) for row in WIDER]
    for scores in (said(*VOC), said(*undefined, *VOC)):
        assert [tile["word"] for tile in tiles(scores)] == ["mAP50"]
        assert verdict({}, scores, [], ["face"]) == "mAP50 0.26 on 87 images, 1,313 faces."


def test_of_a_benchmark_alone_no_mean_is_told() -> None:
    assert verdict({}, said(*WIDER), [], ["face"]).startswith("widerface: APeasy 0.81, ")
