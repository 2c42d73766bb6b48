"""The pipeline: recipe -> plan -> engine -> run directory, and the command line."""

from .recipe import LoadedRecipe, RecipeError, load_recipe

__all__ = ["LoadedRecipe", "RecipeError", "load_recipe"]
