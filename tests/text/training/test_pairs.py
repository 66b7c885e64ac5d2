"""Texts that go together."""

import numpy as np

from text.encoder import TextEncoder
from text.training.pairs import Pairs
from text.training.queries import tokenize_words

TITLES = ["", "red vase", "teal mug", "red vase", "ivory clock", "mustard teapot"]
#         0   1           2           3 = 1       4              5 goes with nothing
GIVEN = np.array([[1, 2], [4, 3], [1, 3], [0, 4]], dtype=np.int64)


def _said(encoder: TextEncoder, ids: list[int]) -> str:
    return str(encoder.tokenizer.decode(ids, skip_special_tokens=True))


def test_a_text_has_the_partners_of_all_texts_with_the_same_words(encoder: TextEncoder) -> None:
    pairs = Pairs(tokenize_words(encoder, TITLES), GIVEN)
    met: dict[int, set[str]] = {row: set() for row in range(6)}
    for seed in range(30):
        drawn = pairs.draw(range(6), pad_id=0, generator=np.random.default_rng(seed))
        for row, ids, mask in zip(drawn.rows.tolist(), drawn.ids, drawn.mask, strict=True):
            met[row].add(_said(encoder, ids[mask.bool()].tolist()))
    vase = {"tealmug", "ivoryclock"}
    assert met == {
        0: {"ivoryclock"},
        1: vase,
        2: {"redvase"},
        3: vase,
        4: {"redvase", ""},
        5: set(),
    }


def test_other_partners_and_equal_texts_also_count_as_answers(encoder: TextEncoder) -> None:
    pairs = Pairs(tokenize_words(encoder, TITLES), GIVEN)
    words = [title.replace(" ", "") for title in TITLES]
    together = {frozenset(words[row] for row in pair) for pair in GIVEN.tolist()}
    for seed in range(10):
        drawn = pairs.draw([1, 2, 3, 4, 0], pad_id=0, generator=np.random.default_rng(seed))
        texts = [words[[1, 2, 3, 4, 0][row]] for row in drawn.rows]
        partners = [
            _said(encoder, ids[mask.bool()].tolist())
            for ids, mask in zip(drawn.ids, drawn.mask, strict=True)
        ]
        wanted = [
            [partner == text or frozenset({partner, text}) in together for text in texts]
            for partner in partners
        ]
        assert drawn.also_answers.tolist() == wanted


def test_a_repeated_pair_is_drawn_more_often(encoder: TextEncoder) -> None:
    given = np.array([[1, 2]] * 9 + [[4, 1]], dtype=np.int64)
    pairs = Pairs(tokenize_words(encoder, TITLES), given)
    generator = np.random.default_rng(0)
    drawn = pairs.draw([1] * 1000, pad_id=0, generator=generator)
    teal = tokenize_words(encoder, ["teal mug"])[0].ids()
    asked = zip(drawn.ids, drawn.mask, strict=True)
    share = np.mean([ids[mask.bool()].tolist() == teal for ids, mask in asked])
    assert abs(share - 0.9) < 0.05


def test_without_pairs_nothing_is_drawn(encoder: TextEncoder) -> None:
    none = np.empty((0, 2), dtype=np.int64)
    pairs = Pairs(tokenize_words(encoder, TITLES), none)
    drawn = pairs.draw([0, 1], pad_id=0, generator=np.random.default_rng(0))
    assert len(drawn.rows) == 0
    assert drawn.also_answers.shape == (0, 0)
