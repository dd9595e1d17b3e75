"""Abacus: the small pretrained backbone that ships with llmad, of the LLaMA kind; see its model card."""

from pathlib import Path

from llmad import Backbone, hookimpl

ABACUS = Backbone(
    name="abacus",
    summary="The embedded default: a small LLaMA pretrained on stories and equations, weights included",
    folders={"abacus": Path(__file__).parents[1] / "data" / "abacus"},
)


@hookimpl
def llmad_backbones() -> list[Backbone]:
    """The embedded backbone."""
    return [ABACUS]
