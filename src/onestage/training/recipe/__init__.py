"""What a user asks of a run, as one object: keys, spans, schedules, stages."""

from onestage.training.recipe.recipe import Guard, MultiScale, Recipe, Saving, build, describe_keys, known_keys

__all__ = ["Guard", "MultiScale", "Recipe", "Saving", "build", "describe_keys", "known_keys"]
