"""Words of texts, and queries made of them."""

import numpy as np

from text.encoder import TextEncoder
from text.views import build_views, find_answers, tokenize_words

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


def test_a_query_is_some_words_of_its_title(encoder: TextEncoder) -> None:
    tokenized = tokenize_words(encoder, TITLES)
    lengths = set()
    for seed in range(50):
        views = build_views(tokenized, pad_id=0, generator=np.random.default_rng(seed))
        for text, ids, mask in zip(tokenized, views.query_ids, views.query_mask, strict=True):
            query = ids[mask.bool()].tolist()
            assert query[:1] == list(text.before)
            tokens = [token for word in text.words for token in word]
            assert sorted(set(query[1:])) == sorted(set(query[1:]) & set(tokens))
            assert bool(text.words) == (len(query) > 1)
        lengths.add(int(views.query_mask[0].sum()) - 1)
    assert {1, 2, 3, 4} <= lengths


def test_the_same_generator_gives_the_same_views(encoder: TextEncoder) -> None:
    tokenized = tokenize_words(encoder, TITLES)
    first, second = (
        build_views(tokenized, pad_id=0, generator=np.random.default_rng(3)) for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        assert one.tolist() == other.tolist()


def test_a_text_answers_a_query_if_it_holds_all_its_words(encoder: TextEncoder) -> None:
    tokenized = tokenize_words(encoder, TITLES)
    queries = [["red", "vase"], ["vase"], ["teal", "vase"], [], ["unheardof"]]
    words = [[tokenize_words(encoder, [word])[0].words[0] for word in query] for query in queries]
    wanted = [
        [all(word in title.lower().split() for word in query) for title in TITLES]
        for query in queries
    ]
    assert find_answers(words, tokenized).tolist() == wanted
