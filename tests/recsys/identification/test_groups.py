import torch

from recsys.identification.groups import MAX_MEMBERS, choose, likely_sets

# Two levels: fruit (apples 0-2, a pear 3) and a product without a category.
ANCESTORS = torch.tensor([[0, 1], [0, 1], [0, 1], [0, 2], [-1, -1]])


def test_sets_widen_from_the_narrowest_category_of_the_most_probable_product() -> None:
    probabilities = torch.tensor([[0.30, 0.05, 0.15, 0.20, 0.25]])
    sets = likely_sets(probabilities, ANCESTORS)
    apples, fruit, anything = sets.rows[0].tolist()
    assert apples[:3] == [0, 2, 1]
    assert fruit[:4] == [0, 3, 2, 1]
    assert anything == [0, 4, 3, 2, 1]
    assert torch.allclose(sets.sums[0, 1, :3], torch.tensor([0.30, 0.50, 0.65]))


def test_a_set_has_at_most_the_maximum_number_of_members() -> None:
    probabilities = torch.full((2, 40), 1 / 41)
    assert likely_sets(probabilities, torch.zeros(40, 2, dtype=torch.long)).rows.shape[2] == (
        MAX_MEMBERS
    )


def test_a_product_without_a_category_has_no_siblings() -> None:
    sets = likely_sets(torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.5]]), ANCESTORS)
    assert sets.rows[0, :2, 0].tolist() == [4, 4]
    assert torch.allclose(sets.sums[0, 0], torch.full((5,), 0.5))


def test_the_smallest_set_of_the_narrowest_category_is_chosen() -> None:
    probabilities = torch.tensor(
        [
            [0.90, 0.02, 0.02, 0.02, 0.02],  # one product is enough
            [0.50, 0.05, 0.35, 0.05, 0.02],  # two apples
            [
                0.45,
                0.05,
                0.05,
                0.40,
                0.02,
            ],  # an apple or the pear; apples are not enough
            [0.10, 0.10, 0.10, 0.10, 0.10],  # not enough together
        ]
    )
    sets = likely_sets(probabilities, ANCESTORS)
    choice = choose(sets, 0.8)
    assert choice.levels.tolist() == [0, 0, 1, -1]
    assert choice.sizes.tolist() == [1, 2, 2, 0]
    assert sets.rows[2, 1, :2].tolist() == [0, 3]
