"""Changes on resuming: every key has a rule, refusals say why and what instead, jumps are told in numbers."""

from __future__ import annotations

from typing import Any

import pytest

from onestage.errors import RecipeError
from onestage.training.plan import laid_out
from onestage.training.recipe import Recipe, known_keys
from onestage.training.saving.changes import ALLOWED, FREE, REFUSED, Changes, Progress, changed_recipe, changes

# A complete recipe as a run folder keeps it: 10 epochs of 40 steps.
OLD = laid_out(Recipe.model_validate({
    "data": "/data/photos", "size": [320, 320], "classes": ["cat", "dog"], "epochs": 10, "device": "cpu",
    "precision": "fp32", "freeze": [], "validation": {"every": 1}, "loss": {"cls": 1.0, "box": 1.0},
    "schedule": {"warmup": 40, "final": 0.02},
}), 40)  # fmt: skip


def at(step: int) -> Progress:
    return Progress(step, 40, "runs/x/weights/best.safetensors")


def change(step: int = 200, **asked: Any) -> Changes:
    keys = {key.replace("__", "."): value for key, value in asked.items()}
    new = changed_recipe(OLD, keys, at(step))
    return changes(OLD, laid_out(new, 40), at(step))


def refused(step: int = 200, **asked: Any) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        change(step, **asked)
    return caught.value.problems


def test_every_key_has_one_rule() -> None:
    def rules(key: str) -> list[str]:
        named = [name for name in (*FREE, *ALLOWED, *REFUSED) if key == name or key.startswith(f"{name}.")]
        return [name for name in named if not any(other.startswith(f"{name}.") for other in named)]

    assert {key: rules(key) for key in known_keys() if len(rules(key)) != 1} == {}


def test_nothing_asked_nothing_changed() -> None:
    assert change() == Changes()
    assert change(size=320, batch=16, classes=["cat", "dog"], model="ssd-lite0", data="/data/photos") == Changes()


def test_free_keys_leave_the_run_exact() -> None:
    told = change(workers=4, cache=False, guard__nan="skip", saving__seconds=5, validation__every=2)
    assert told.changed == {
        "workers": [0, 4], "cache": [True, False], "guard.nan": ["stop", "skip"], "saving.seconds": [60.0, 5.0],
        "validation.every": [1, 2],
    }  # fmt: skip
    assert told.reasons == []
    assert told.notes == ()


def test_changes_of_the_mathematics_are_recorded() -> None:
    told = change(optimiser__lr=5e-4, loss__box=2.0, augmentation__policy="zoom", ema=0.99, accumulate=4)
    assert told.changed["loss.box"] == [1.0, 2.0]
    assert told.changed["optimiser.lr"] == [1e-3, 5e-4]
    assert set(told.reasons) == {
        f"{key} was changed" for key in ("optimiser.lr", "loss.box", "augmentation.policy", "ema", "accumulate")
    }


@pytest.mark.parametrize("asked", [
    {"model": "ssd300"}, {"size": 512}, {"size": [320, 256]}, {"classes": ["dog", "cat"]}, {"weights": "none"},
    {"seed": 1}, {"split_seed": 1}, {"batch": 8}, {"fit": "letterbox"}, {"optimiser.name": "sgd"},
    {"validation.metric": "mAP50"}, {"options.overlap": 0.4}, {"name": "other"}, {"ema": 0},
])  # fmt: skip
def test_what_makes_another_run_is_refused_with_the_reason(asked: dict[str, Any]) -> None:
    (key,) = asked
    (problem,) = refused(**{key.replace(".", "__"): value for key, value in asked.items()})
    assert problem.startswith(f"{key}: ")
    assert "; instead, " in problem


def test_all_refusals_at_once_and_misspelt_keys_among_them() -> None:
    problems = refused(batch=8, seed=3, epochs=20, optimizer__lr=1, clip=-1)
    assert [problem.partition(":")[0] for problem in problems] == ["optimizer.lr", "clip", "batch", "seed"]
    assert "did you mean 'optimiser.lr'" in problems[0]


def test_an_average_cannot_be_taken_up_later() -> None:
    without = OLD.model_copy(update={"ema": 0.0})
    with pytest.raises(RecipeError, match="no average of the weights so far"):
        changed_recipe(without, {"ema": 0.99}, at(5))


def test_a_run_is_not_shortened_below_what_is_done() -> None:
    assert change(200, epochs=5).notes[0] == (
        "the run takes 5 epochs instead of 10: 200 steps instead of 400, of which 200 are done"
    )
    assert refused(200, epochs=4) == ("epochs: expected at least 5, for 5 epochs are done; got 4",)
    assert refused(201, epochs=5) == ("epochs: expected at least 6, for epoch 6 is begun; got 5",)
    assert refused(201, epochs=None) == ("epochs: expected a number, for the run has one already",)


def test_a_stretched_cosine_says_how_lr_jumps() -> None:
    notes = change(400, epochs=20).notes
    was = 1e-3 * (0.02 + 0.98 * (1 + __import__("math").cos(__import__("math").pi * 399 / 400)) / 2)
    now = 1e-3 * (0.02 + 0.98 * 0.5)
    assert notes[1] == (
        f"the learning rate was {was:.3g} at step 400 and is {now:.3g} at step 401: its cosine schedule is laid over "
        "800 steps now"
    )
    assert "schedule.name=constant schedule.warmup=0 optimiser.lr=2e-05 would go on" in notes[2]
    assert notes[3].startswith("augmentation has been in its calm form since epoch 9; it takes its full form again")


def test_going_on_at_the_earlier_rate_jumps_nowhere() -> None:
    notes = change(400, epochs=20, schedule__name="constant", schedule__warmup=0, optimiser__lr=2e-5).notes
    assert not [note for note in notes if "learning rate" in note]


def test_no_jump_is_told_where_the_schedule_itself_moves() -> None:
    assert change(3, clip=5).notes == ()  # the warm-up climbs by more than a tenth a step


def test_another_schedule_forgets_the_keys_of_the_old_one() -> None:
    told = change(schedule__name="constant")
    assert told.changed["schedule.name"] == ["cosine", "constant"]
    assert told.changed["schedule.final"] == [0.02, None]
    assert "schedule.warmup" not in told.changed


def test_scores_that_no_longer_compare_are_told() -> None:
    assert "do not compare" in change(validation__iou=0.45).notes[0]


def test_nothing_jumps_before_the_first_step() -> None:
    assert [note for note in change(0, epochs=20, optimiser__lr=1.0).notes if "rate" in note] == []


# Two stages of 5 epochs, of 40 steps each.
STAGED = laid_out(Recipe.model_validate({
    **OLD.as_dict(), "stages": [{"name": "heads", "epochs": 5}, {"name": "all", "epochs": 5}],
}), 40)  # fmt: skip


def staged(step: int, **asked: Any) -> Changes:
    new = changed_recipe(STAGED, {key.replace("__", "."): value for key, value in asked.items()}, at(step))
    return changes(STAGED, laid_out(new, 40), at(step))


def test_a_staged_run_is_made_longer_by_its_last_stage() -> None:
    told = staged(400, epochs=20)
    assert (told.changed["epochs"], told.changed["stages[1].epochs"]) == ([10, 20], [5, 15])
    assert not any(key.startswith("stages[0]") for key in told.changed)


def test_stages_may_change_without_naming_the_epochs() -> None:
    first, last = (leg.model_dump() for leg in STAGED.stages)
    told = staged(250, stages=[first, {**last, "epochs": 7}])
    assert told.changed["epochs"] == [10, 12]
    more = staged(250, stages=[first, last, {"name": "end", "epochs": 2}])
    assert more.changed["epochs"] == [10, 12]
    assert "stages[2].name" in more.changed


def test_the_optimiser_of_a_stage_that_is_begun_stays() -> None:
    first, last = (leg.model_dump() for leg in STAGED.stages)
    other = {**last, "optimiser": {"name": "sgd"}, "schedule": {"name": "constant"}}
    assert "stages[1].optimiser.name" in staged(100, stages=[first, other]).changed  # not begun yet
    with pytest.raises(RecipeError) as caught:
        staged(250, stages=[first, other])
    assert caught.value.problems == ("stage all: what adamw remembers of its steps means nothing to sgd",)


def test_changes_that_no_step_is_left_for_are_refused() -> None:
    problems = refused(400, optimiser__lr=1e-5)
    assert problems == ("optimiser.lr: 0.001 did the 400 steps",)
    assert change(400, epochs=12, optimiser__lr=1e-5).changed["epochs"] == [10, 12]
    assert change(400, validation__score=0.05).reasons == []
