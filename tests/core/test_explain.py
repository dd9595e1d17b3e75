"""Explanations: one row for places that differ in their numbers only."""

from llmad.explain import kinds
from llmad.layout import Finding
from llmad.match import layout
from tests import zoo


def test_places_of_a_kind_share_a_row():
    found = [
        Finding("h.0.q", "attn.q", "sure", "named q"),
        Finding("h.11.q", "attn.q", "sure", "named q"),
        Finding("h.0.experts.w.3[expert.up]", "expert.up", "sure", "parameter w"),
        Finding("h.0.experts.w.12[expert.up]", "expert.up", "sure", "parameter w"),
        Finding("h.0.x", "", "none", "no role"),
    ]
    rows = [(row.places, row.count, row.role) for row in kinds(found)]
    assert rows == [("h.*.q", 2, "attn.q"), ("h.*.experts.w.*[expert.up]", 2, "expert.up"), ("h.*.x", 1, "")]


def test_a_described_model_says_who_described_it():
    (why,) = {row.why for row in kinds(layout(zoo.build("llama")).findings)}
    assert why == "backbone llama says so"


def test_every_finding_is_counted():
    findings = layout(zoo.build("qwen3_next")).findings
    assert sum(row.count for row in kinds(findings)) == len(findings)
