"""What a run is fed with: the batches of each epoch, with its augmentation and input sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onestage.data.augment import augmentation, calm, with_fit
from onestage.data.loader import Loader
from onestage.data.policy import Policy
from onestage.records import Batch
from onestage.training.devices.ranks import Ranks
from onestage.training.multiscale import Sizes
from onestage.training.plan import Plan
from onestage.training.recipe import Recipe


def policy_at(recipe: Recipe, epoch: int) -> Policy:
    """The augmentation of an epoch of a completed recipe: its policy, or the policy's calm form at the run's end."""
    policy = with_fit(augmentation(recipe.augmentation.policy, **recipe.augmentation.options), recipe.fit)
    return calm(policy) if epoch >= recipe.calm_from else policy


def training_loader(plan: Plan, **changes: Any) -> Loader:
    """The loader of the plan's training images, with the policy of its first epoch; `changes` to its arguments."""
    recipe, train = plan.recipe, plan.opened.train
    asked: dict[str, Any] = {
        "batch": recipe.batch, "seed": recipe.seed, "drop_last": len(train) >= recipe.batch,
        "workers": recipe.workers, "cache": recipe.cache,
    }  # fmt: skip
    return Loader(train, plan.detector.size, policy_at(recipe, 0), **{**asked, **changes})


class Feed:
    """The batches of a planned run, or this process's share of each: the same whenever they are asked for."""

    def __init__(self, plan: Plan, ranks: Ranks) -> None:
        self.plan, self.sizes = plan, Sizes.of(plan.recipe, plan.detector.size)
        self.loader = training_loader(plan, rank=ranks.rank, ranks=ranks.count)

    @property
    def images(self) -> int:
        """Images of a whole batch, over all processes."""
        return min(self.plan.recipe.batch, len(self.plan.opened.train))

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        """The batches of an epoch of which `done` are done already."""
        before = epoch * self.plan.steps_per_epoch
        left = self.plan.steps - before  # a run whose length is said in steps may end within an epoch

        def size_of(number: int) -> tuple[int, int]:
            return self.sizes.at(before + number)

        policy = policy_at(self.plan.recipe, epoch)
        sizes = size_of if self.sizes.changing else None
        return self.loader.epoch(epoch, start=done, policy=policy, size_of=sizes, stop=left)

    def close(self) -> None:
        """End what the loader keeps running."""
        self.loader.close()
