"""What a run is fed with: the batches of each epoch, with its augmentation and input sizes."""

from __future__ import annotations

from collections.abc import Iterator

from onestage.data.augment import Policy, augmentation, calm, with_fit
from onestage.data.loader import Loader
from onestage.records import Batch
from onestage.training.devices.ranks import Ranks
from onestage.training.multiscale import Sizes
from onestage.training.plan import Plan


class Feed:
    """The batches of a planned run, or this process's share of each: the same whenever they are asked for."""

    def __init__(self, plan: Plan, ranks: Ranks) -> None:
        recipe = plan.recipe
        self.plan, self.sizes = plan, Sizes.of(recipe, plan.detector.size)
        self.policy: Policy = with_fit(
            augmentation(recipe.augmentation.policy, **recipe.augmentation.options), recipe.fit
        )
        self.loader = Loader(
            plan.opened.train, plan.detector.size, self.policy, batch=recipe.batch, seed=recipe.seed,
            drop_last=len(plan.opened.train) >= recipe.batch, workers=recipe.workers, cache=recipe.cache,
            rank=ranks.rank, ranks=ranks.count,
        )  # fmt: skip

    @property
    def images(self) -> int:
        """Images of a whole batch, over all processes."""
        return min(self.plan.recipe.batch, len(self.plan.opened.train))

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        """The batches of an epoch of which `done` are done already."""
        recipe = self.plan.recipe
        calm_from = round(int(recipe.epochs or 0) * (1 - recipe.augmentation.rest))
        policy = calm(self.policy) if epoch >= calm_from and recipe.augmentation.rest else self.policy
        before = epoch * self.plan.steps_per_epoch

        def size_of(number: int) -> tuple[int, int]:
            return self.sizes.at(before + number)

        return self.loader.epoch(epoch, start=done, policy=policy, size_of=size_of if self.sizes.changing else None)

    def close(self) -> None:
        """End what the loader keeps running."""
        self.loader.close()
