"""What is installed, as plain rows: the same for the command line, for JSON and for Python."""

from typing import Any

from llmad.errors import LlmadError
from llmad.options import word
from llmad.preset import Preset
from llmad.registry import Offer, registry


def list_adapters() -> list[dict[str, Any]]:
    """Every adapter method, then every preset: name, summary, where it comes from, whether its name is its own."""
    rows = [
        {
            "name": name,
            "summary": offer.value.summary(),
            **_origin(name, offer),
            **_placement(offer),
        }
        for name, offer in registry().offers("adapter")
    ]
    return sorted(rows, key=lambda row: bool(row["preset"]))


def list_backbones() -> list[dict[str, Any]]:
    """Every backbone family: the model types it describes, the sizes it knows, the weights it ships."""
    return [
        {
            "name": name,
            "summary": offer.value.summary,
            "model_types": list(offer.value.model_types),
            "shapes": list(offer.value.shapes),
            "weights": list(offer.value.folders),
            **_origin(name, offer),
        }
        for name, offer in registry().offers("backbone")
    ]


def list_quantizers() -> list[dict[str, Any]]:
    """Every quantizer: name, summary, its options with their defaults, where it comes from."""
    return [
        {
            "name": name,
            "summary": offer.value.summary(),
            "options": [f"{key}={word(field.get_default())}" for key, field in offer.value.model_fields.items()],
            **_origin(name, offer),
        }
        for name, offer in registry().offers("quantizer")
    ]


def list_tasks() -> list[dict[str, Any]]:
    """Every task: name, summary, where it comes from."""
    return [
        {
            **offer.value.describe(),
            "name": name,
            **_origin(name, offer),
        }
        for name, offer in registry().offers("task")
    ]


def list_plugins() -> list[dict[str, Any]]:
    """Every plugin found, the broken and the skipped ones too."""
    return [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "api": plugin.api,
            "offers": [f"{offer.kind} {offer.name}" for offer in plugin.offers],
            "status": plugin.status,
            "error": plugin.error,
        }
        for plugin in registry().plugins
    ]


def _placement(offer: Offer) -> dict[str, str]:
    """What a preset stands for, and the default sites; a preset of something that is not installed is broken."""
    preset = {"preset": offer.value.spec} if isinstance(offer.value, Preset) else {"preset": ""}
    try:
        return {**preset, "sites": str(registry().adapter(offer.full_name, {}).sites)}
    except LlmadError as error:
        return {**preset, "sites": "", "status": "broken", "summary": str(error)}


def _origin(name: str, offer: Offer) -> dict[str, str]:
    """Where it comes from, and whether its bare name is its own."""
    status = "ok" if name == offer.name else "conflict"
    return {"distribution": offer.distribution, "version": offer.version, "status": status}
