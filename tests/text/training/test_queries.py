"""Words of texts, and queries made of them."""

import numpy as np

from text.encoder import TextEncoder
from text.training.queries import draw_queries, find_answers, tokenize_words

TITLES = ["Kestrel Nordic red vase", "red vase", "teal mug", "", "red red vase Norrhem 红灯"]


def test_words_put_together_are_the_tokens_of_the_text(encoder: TextEncoder) -> None:
    ids = encoder.tokenize(TITLES)["input_ids"]
    tokenized = tokenize_words(encoder, TITLES)
    assert [text.ids() for text in tokenized] == ids
    assert [len(text.words) for text in tokenized] == [4, 2, 2, 0, 6]


def test_a_long_text_is_cut_as_the_encoder_cuts_it(encoder: TextEncoder) -> None:
    encoder.max_tokens = 5
    (text,) = tokenize_words(encoder, ["red vase teal mug red vase"])
    assert len(text.ids()) == 5


def test_a_query_is_some_words_of_its_source(encoder: TextEncoder) -> None:
    tokenized = tokenize_words(encoder, TITLES)
    lengths = set()
    for seed in range(50):
        queries = draw_queries(
            tokenized, tokenized, pad_id=0, generator=np.random.default_rng(seed)
        )
        assert queries.rows.tolist() == [0, 1, 2, 4]  # an empty title has nothing to be found by
        for row, ids, mask in zip(queries.rows, queries.ids, queries.mask, strict=True):
            text, query = tokenized[row], ids[mask.bool()].tolist()
            assert query[:1] == list(text.before)
            assert 0 < len(query[1:]) == len(set(query[1:]) & set(text.ids()[1:])) or row == 4
        lengths.add(int(queries.mask[0].sum()) - 1)
    assert lengths == {1, 2, 3, 4}


def test_a_text_without_a_source_gets_no_query(encoder: TextEncoder) -> None:
    sources = tokenize_words(encoder, ["", "Home Vase", "", "Home", ""])
    texts = tokenize_words(encoder, TITLES)
    queries = draw_queries(sources, texts, pad_id=0, generator=np.random.default_rng(0))
    assert queries.rows.tolist() == [1, 3]
    assert queries.also_answers.shape == (2, 2)


def test_every_text_with_all_words_of_a_query_answers_it(encoder: TextEncoder) -> None:
    sources = tokenize_words(encoder, ["red vase", "teal", "red mug"])
    texts = tokenize_words(encoder, ["red vase teal", "teal mug", "red mug teal vase"])
    met = set()
    for seed in range(20):
        queries = draw_queries(sources, texts, pad_id=0, generator=np.random.default_rng(seed))
        for ids, mask, answers in zip(queries.ids, queries.mask, queries.also_answers, strict=True):
            asked = set(ids[mask.bool()].tolist()[1:])
            assert answers.tolist() == [asked <= set(text.ids()) for text in texts]
            met.add(tuple(answers.tolist()))
    assert len(met) > 2


def test_the_same_generator_gives_the_same_queries(encoder: TextEncoder) -> None:
    tokenized = tokenize_words(encoder, TITLES)
    first, second = (
        draw_queries(tokenized, tokenized, pad_id=0, generator=np.random.default_rng(3))
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        assert one.tolist() == other.tolist()


def test_a_text_answers_the_queries_whose_words_it_has(encoder: TextEncoder) -> None:
    tokenized = tokenize_words(encoder, TITLES)
    queries = [["red", "vase"], ["vase"], ["teal", "vase"], [], ["unheardof"]]
    words = [[tokenize_words(encoder, [word])[0].words[0] for word in query] for query in queries]
    wanted = [
        [all(word in title.lower().split() for word in query) for title in TITLES]
        for query in queries
    ]
    assert find_answers(words, tokenized).tolist() == wanted
