"""Preset: a name for a method with options, such as the settings of a paper."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A named adapter spec; a plugin returns it from `llmad_adapters`, beside methods or alone.

    Attributes:
        name: what users type; options given with it override the preset's.
        spec: the method and its options, such as `series[bottleneck=256]`.
        about: one line.
    """

    name: str
    spec: str
    about: str

    def summary(self) -> str:
        """The line about it."""
        return self.about
