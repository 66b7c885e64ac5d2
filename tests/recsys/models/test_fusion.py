import pytest
import torch
from torch import Tensor

from recsys.config import FusionConfig
from recsys.models.fusion import FUSIONS, GatedSum, ItemFusion, build_fusion

DIMS = {"text": 12, "image": 7}


def fusion(kind: str = "gated", *, seed: int = 0) -> ItemFusion:
    """Return a fusion with random weights everywhere, also where training would start at zero."""
    torch.manual_seed(seed)
    module = ItemFusion(DIMS, dim=16, hidden=10, kind=kind).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def batch(n: int = 6, *, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, size, generator=generator) for name, size in DIMS.items()}


PRESENT = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [0, 0], [1, 0]], dtype=torch.bool)

every_kind = pytest.mark.parametrize("kind", sorted(FUSIONS))


@every_kind
def test_embeddings_have_unit_length_and_an_empty_item_has_zeros(kind: str) -> None:
    fused = fusion(kind)(batch(), PRESENT)
    assert fused.shape == (6, 16)
    torch.testing.assert_close(fused.norm(dim=1), PRESENT.any(dim=1).float())


@every_kind
def test_absent_modality_cannot_leak(kind: str) -> None:
    module, rows = fusion(kind), batch()
    hidden = {
        name: values.masked_fill(~PRESENT[:, m, None], torch.nan)
        for m, (name, values) in enumerate(rows.items())
    }
    assert torch.equal(module(hidden, PRESENT), module(rows, PRESENT))


@every_kind
def test_an_absent_modality_gives_finite_gradients(kind: str) -> None:
    module, rows = fusion(kind), batch()
    rows["image"] = rows["image"].masked_fill(~PRESENT[:, 1, None], torch.nan)
    module(rows, PRESENT).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@every_kind
def test_present_modality_changes_the_embedding(kind: str) -> None:
    module, rows = fusion(kind), batch()
    before = module(rows, PRESENT)
    rows["image"] = rows["image"] + 1
    changed = (module(rows, PRESENT) != before).any(dim=1)
    assert torch.equal(changed, PRESENT[:, 1])


@every_kind
def test_an_item_gets_the_same_embedding_in_any_batch(kind: str) -> None:
    module, rows = fusion(kind), batch()
    alone = [
        module({name: values[i : i + 1] for name, values in rows.items()}, PRESENT[i : i + 1])
        for i in range(6)
    ]
    torch.testing.assert_close(torch.cat(alone), module(rows, PRESENT))


@every_kind
def test_a_query_is_embedded_like_an_item_with_the_same_modalities(kind: str) -> None:
    module, rows = fusion(kind), batch()
    only_text = torch.tensor([[True, False]]).expand(6, 2)
    torch.testing.assert_close(module.encode({"text": rows["text"]}), module(rows, only_text))
    both = torch.ones(6, 2, dtype=torch.bool)
    torch.testing.assert_close(module.encode(rows), module(rows, both))


@every_kind
def test_the_order_in_which_modalities_are_given_does_not_matter(kind: str) -> None:
    module, rows = fusion(kind), batch()
    backwards = dict(reversed(rows.items()))
    assert torch.equal(module(backwards, PRESENT), module(rows, PRESENT))
    assert torch.equal(module.encode(backwards), module.encode(rows))


def test_gated_sum_equals_its_definition() -> None:
    torch.manual_seed(0)
    gated, values = GatedSum(2, 3), torch.randn(4, 2, 3)
    for parameter in gated.parameters():
        torch.nn.init.normal_(parameter)
    present = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=torch.bool)
    values = values.masked_fill(~present[..., None], 0.0)
    wanted = torch.zeros(4, 3)
    for i in range(4):
        has = [m for m in range(2) if present[i, m]]
        weights = {m: gated.gates[m](values[i, m]).exp() for m in has}
        for m in has:
            wanted[i] += weights[m] / sum(weights.values()) * values[i, m]
    torch.testing.assert_close(gated(values, present), wanted)


def test_inputs_are_standardised_by_the_items_that_have_them() -> None:
    module, image = fusion(), batch()["image"][PRESENT[:, 1]]
    module.fit_scale({"text": batch()["text"], "image": image})
    projection = module.projections[1]
    torch.testing.assert_close(projection.mean, image.mean(dim=0))
    deviation = (image - image.mean(dim=0)).square().mean().sqrt()
    torch.testing.assert_close(projection.deviation, deviation)


def test_a_modality_that_no_item_has_keeps_its_scale() -> None:
    module = fusion()
    module.fit_scale({**batch(), "image": torch.empty(0, 7)})
    assert module.state_dict()["projections.1.mean"].tolist() == [0.0] * 7


@every_kind
def test_one_modality_is_enough(kind: str) -> None:
    module = ItemFusion({"text": 12}, dim=16, kind=kind).eval()
    fused = module.encode({"text": torch.randn(3, 12)})
    torch.testing.assert_close(fused.norm(dim=1), torch.ones(3))


@every_kind
def test_weights_and_config_rebuild_the_module(kind: str) -> None:
    config = FusionConfig(dim=16, hidden=10, kind=kind)
    one, other = build_fusion(config, DIMS).eval(), build_fusion(config, DIMS).eval()
    one.fit_scale(batch())
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(batch(), PRESENT), other(batch(), PRESENT))


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"one of \['attention', 'concat', 'gated'\], got 'sum'"):
        ItemFusion(DIMS, dim=16, kind="sum")


def test_a_fusion_without_modalities_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one modality"):
        ItemFusion({}, dim=16)


def test_the_error_for_a_missing_modality_names_encode() -> None:
    with pytest.raises(ValueError, match=r"\['text', 'image'\], got \['text'\]; use encode"):
        fusion()({"text": torch.zeros(6, 12)}, PRESENT)


def test_shapes_that_disagree_are_named() -> None:
    with pytest.raises(ValueError, match=r"present \(5, 2\)"):
        fusion()(batch(), PRESENT[:5])


def test_a_query_of_an_unknown_modality_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"one or more of \['text', 'image'\], got \['sound'\]"):
        fusion().encode({"sound": torch.zeros(1, 3)})
    with pytest.raises(ValueError, match=r"got \[\]"):
        fusion().encode({})


def test_a_query_of_the_wrong_size_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"embeddings\['text'\] must have shape \(B, 12\)"):
        fusion().encode({"text": torch.zeros(1, 3)})
