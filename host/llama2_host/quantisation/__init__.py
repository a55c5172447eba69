"""Decides how a checkpoint's matrices become codes: which format each gets, and on what text they are calibrated.

``plan(recipe, ...)`` gives what :func:`llama2_spec.image.write` takes; the formats end up in the image's directory,
tensor by tensor.
"""
from llama2_host.quantisation.loss import Losses, LostError
from llama2_host.quantisation.recipe import FORMATS, MATRIX_FORMATS, Recipe, plan

__all__ = ["FORMATS", "Losses", "LostError", "MATRIX_FORMATS", "Recipe", "plan"]
