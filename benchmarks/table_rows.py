"""Which results the tables of README.md and of docs/ show, by the name of the table."""

from collections.abc import Mapping
from dataclasses import dataclass

_REGRESSIONS = ("regression", "regression_prices", "regression_ids", "regression_smoothed")
_USERS = (*_REGRESSIONS, "transformer", "transformer_prices")


@dataclass(frozen=True)
class Table:
    """Which results a table shows: a cell's result has the name of its row and column joined.

    Args:
        corner: Heading of the column of row labels.
        rows: First part of the result's name, by row label.
        columns: Last part of the result's name, by column heading; "" if the row has all of it.
    """

    corner: str
    rows: Mapping[str, str]
    columns: Mapping[str, str]

    def cell_name(self, row: str, column: str) -> str:
        """Return the name of the result that a cell shows."""
        return ".".join(part for part in (self.rows[row], self.columns[column]) if part)


TABLES: Mapping[str, Table] = {
    "commands": Table(
        corner="command",
        rows={"`make demo`, after the install": "demo", "`make test`": "tests"},
        columns={"time": "seconds", "peak memory": "peak_gb"},
    ),
    "shop": Table(
        corner="generated shop",
        rows={
            "NDCG@10, times that of the best baseline": "shop.ndcg@10.ratio_to_best_baseline",
            "Recall@20 of items without events, times popularity's": (
                "shop.cold.recall@20.ratio_to_popularity"
            ),
            "the same, times content-kNN's": "shop.cold.recall@20.ratio_to_content_knn",
            "served score less offline score, largest difference": "parity.max_abs_diff",
        },
        columns={"measured": ""},
    ),
    "defaults": Table(
        corner="default configuration, NDCG@10",
        rows={
            "Online Retail, a year of purchases": "defaults.online_retail",
            "Amazon Beauty, leave-one-out": "defaults.amazon_beauty",
            "generated: many people, one visit each": "defaults.visits",
            "generated: few people, thousands of events": "defaults.loyal",
            "generated: likes for some days, over twenty years": "defaults.likes",
        },
        columns={
            "this library": "ndcg@10",
            "best baseline": "best_baseline.ndcg@10",
            "ratio": "ratio_to_best_baseline",
        },
    ),
    "online_retail": Table(
        corner="model",
        rows={
            "popularity": "online_retail.popularity",
            "popularity, last 30 days": "online_retail.recent_popularity",
            "item-kNN": "online_retail.item_knn",
            "iALS": "online_retail.ials",
            "EASE": "online_retail.ease",
            "own purchases, count × 60-day decay": "online_retail.own_purchases",
            "this library, its trees alone, one seed": "online_retail.lambdamart",
            "this library, mean of three seeds": "online_retail",
        },
        columns={
            "all: NDCG@10": "all.ndcg@10",
            "all: Recall@20": "all.recall@20",
            "new: NDCG@10": "new.ndcg@10",
            "new: Recall@20": "new.recall@20",
        },
    ),
    "online_retail_cold": Table(
        corner="products hidden from training",
        rows={
            "random": "online_retail.cold.random",
            "text-kNN": "online_retail.cold.text_knn",
            "this library": "online_retail.cold",
        },
        columns={"NDCG@10": "ndcg@10", "Recall@20": "recall@20"},
    ),
    "offers": Table(
        corner="500 items of each source",
        rows={"41,000 items": "offers.items_41k", "100,000 items": "offers"},
        columns={"recall of all sources": "recall", "share of NDCG@10 lost": "ndcg_lost"},
    ),
    "serving": Table(
        corner="the demo's bundle",
        rows={
            "a call without work, 32 at a time": "serving.demo.no_op.at_32",
            "`Recommend`, one at a time": "serving.demo.recommend.alone",
            "`Recommend`, 32 at a time": "serving.demo.recommend.at_32",
            "half as many, at an even rate": "serving.demo.recommend.at_half_load",
            "the same, while photos are identified": "serving.demo.recommend.beside_identify",
        },
        columns={"a second": "per_s", "median": "p50_ms", "99 %": "p99_ms"},
    ),
    "embedding_cache": Table(
        corner="500 embeddings of 64 values",
        rows={
            "from the table": "serving.cache.table_us",
            "by one `MGET` from Redis, decoded": "serving.cache.mget_us",
            "times as fast": "serving.cache.ratio_to_mget",
            "90 % from the table, the others from Redis": "serving.cache.hits_90_us",
            "50 % from the table": "serving.cache.hits_50_us",
            "2,000 of 630,000 × 16 by Zipf's law, mean": "serving.cache.zipf.mean_ms",
            "the same, 99 %": "serving.cache.zipf.p99_ms",
            "memory of a row in Redis": "serving.cache.redis_bytes_per_row",
        },
        columns={"measured": ""},
    ),
    "scale": Table(
        corner="default configuration, two cores, one thread",
        rows={"10,000,000 events, 100,000 items": "scale.events_10000000"},
        columns={
            "training and report": "seconds",
            "of a processor": "cpu_seconds",
            "memory": "peak_gb",
            "bundle": "bundle_gb",
            "NDCG@10": "ndcg@10",
            "times the best baseline": "ratio_to_best_baseline",
        },
    ),
    "text_start": Table(
        corner="titles that are held out, found by",
        rows={
            f"{shop}: {label}": f"text_start.{name}.{encoder}"
            for name, shop in (("shop", "generated shop"), ("online_retail", "Online Retail"))
            for encoder, label in (("new", "new encoder"), ("published", "MiniLM"))
        },
        columns={
            "two of their words": "words",
            "later partners": "partners",
            "category": "category",
        },
    ),
    "users": Table(
        corner="user vectors",
        rows={
            f"{name}: {label}".replace("_", " "): f"users.{name}.{label}"
            for name, labels in (("shop", _USERS), ("online_retail", _USERS[:2]))
            for label in labels
        },
        columns={
            "all: NDCG@10": "all.ndcg@10",
            "all: Recall@100": "all.recall@100",
            "new: Recall@100": "new.recall@100",
            "cold: NDCG@10": "cold.ndcg@10",
            "training": "seconds",
            "trees, all: NDCG@10": "trees.all.ndcg@10",
            "trees, new: NDCG@10": "trees.new.ndcg@10",
        },
    ),
    "ranking_speed": Table(
        corner="4,000 items",
        rows={
            "examples built, a second": "ranking_train.building.examples_per_s",
            "examples learned, network and trees, a second": "ranking_train.examples_per_s",
            "share of the time outside of both": "ranking_train.share_outside_model",
            "users at once, a second": "recommend_many.users_per_s",
            "the same, times users one by one": "recommend_many.ratio_to_single",
            "the same, times implicit's product of factors": "recommend_many.ratio_to_implicit",
        },
        columns={"measured": ""},
    ),
    "grocery_store": Table(
        corner="Grocery Store, test photos",
        rows={
            "accuracy, 81 fine classes": "grocery.fine.accuracy",
            "accuracy, coarse classes": "grocery.coarse.accuracy",
            "fine, after Myntra's pictures, mean of 3 seeds": "grocery.scratch.fine.accuracy",
            "coarse, after Myntra's pictures, mean of 3 seeds": "grocery.scratch.coarse.accuracy",
            "photo → product, the same, top 1 of 81": "grocery.identify.labelled.top1",
            "photo → product, the same, top 5 of 81": "grocery.identify.labelled.top5",
        },
        columns={"measured": ""},
    ),
    "grocery_scratch": Table(
        corner="Grocery Store, test photos, three seeds",
        rows={"fine": "grocery.scratch.fine.accuracy", "coarse": "grocery.scratch.coarse.accuracy"},
        columns={"accuracy, mean": "", "standard deviation": "std"},
    ),
    "grocery_transfer": Table(
        corner="Grocery Store, test photos, one seed",
        rows={
            "fine": "grocery.transfer.fine.accuracy",
            "coarse": "grocery.transfer.coarse.accuracy",
        },
        columns={"accuracy": ""},
    ),
    "grocery_steps": Table(
        corner="step",
        rows={
            "baseline: 60 epochs at 112 px, random weights": "grocery.steps.baseline",
            "40 epochs from Myntra's backbone": "grocery.steps.myntra",
            "45 epochs at 144 px": "grocery.steps.larger",
            "twelve views, levels agree": "grocery.steps.views",
        },
        columns={"fine, val": "fine", "coarse, val": "coarse"},
    ),
    "grocery_labels": Table(
        corner="share of the labels",
        rows={f"{share} %": f"grocery.labels_{share}pct" for share in (5, 20, 100)},
        columns={
            "random weights": "scratch.accuracy",
            "self-supervised first": "ssl.accuracy",
            "gain": "ssl_gain",
        },
    ),
    "grocery_active": Table(
        corner="5 % labelled, then as many again",
        rows={
            "chosen at random": "grocery.active.random",
            "by margin": "grocery.active.margin",
            "by core-set": "grocery.active.core_set",
        },
        columns={"accuracy": "accuracy"},
    ),
    "grocery_few_shot": Table(
        corner="ten products beside 71",
        rows={
            "1 photo each": "grocery.few_shot.1",
            "5 photos each": "grocery.few_shot.5",
            "10 photos each": "grocery.few_shot.10",
            "trained with all their photos": "grocery.few_shot.trained",
        },
        columns={"old products": "old", "new products": "new", "calibration error": "ece"},
    ),
    "grocery_few_shot_before": Table(
        corner="71 products alone",
        rows={"before any is added": "grocery.few_shot.none"},
        columns={"old products": "old"},
    ),
    "myntra_pictures": Table(
        corner="Myntra, article type from the picture",
        rows={"all weights trained": "myntra.article_type.image"},
        columns={"accuracy": "accuracy", "macro-F1": "macro_f1"},
    ),
    "myntra_imbalance": Table(
        corner="classifiers on the frozen backbone",
        rows={
            "cross-entropy": "myntra.imbalance.cross_entropy",
            "thresholds per class, tuned on val": "myntra.imbalance.thresholds",
            "focal": "myntra.imbalance.focal",
            "class weights, balanced": "myntra.imbalance.class_weights",
            "class weights, effective number": "myntra.imbalance.effective_weights",
            "logit adjustment": "myntra.imbalance.logit_adjusted",
            "balanced sampling": "myntra.imbalance.balanced_sampling",
            "effective-number sampling": "myntra.imbalance.effective_sampling",
        },
        columns={"accuracy": "accuracy", "macro-F1": "macro_f1"},
    ),
    "grocery_identify": Table(
        corner="Grocery Store, 81 products, test photos",
        rows={
            "studio pictures": "grocery.identify.studio",
            "and descriptions": "grocery.identify.described",
            "and labelled photos": "grocery.identify.labelled",
            "pictures and descriptions, towers that saw no photo": "grocery.identify.zero_label",
        },
        columns={"top 1": "top1", "top 5": "top5"},
    ),
    "grocery_words": Table(
        corner="Grocery Store, test photos of packages, no labelled photo",
        rows={
            "nearest studio picture, features of ImageNet": "grocery.words.features",
            "studio pictures": "grocery.words.pictures",
            "and descriptions": "grocery.words.described",
            "and words on the photo": "grocery.words.read",
            "words on the photo alone": "grocery.words.alone",
        },
        columns={"top 1": "top1", "top 5": "top5", "in the catalogue or not, AUROC": "auroc"},
    ),
    "grocery_unknown": Table(
        corner="Grocery Store, ten products left out",
        rows={
            "in the catalogue or not, AUROC": "grocery.unknown.auroc",
            "photos answered, 95 % of them rightly": "grocery.unknown.coverage_at_p95",
            "photos answered at the threshold of val": "grocery.unknown.said",
            "and share of these answers that are right": "grocery.unknown.precision",
            "calibration error, 10 % of the photos of the ten": "grocery.identify.ece",
            "calibration error, all 81 products, no photo of another": (
                "grocery.identify.labelled.error"
            ),
        },
        columns={"measured": ""},
    ),
    "myntra_retrieval": Table(
        corner="Myntra, 2,000 unseen titles, 41,237 pictures",
        rows={"title → picture": "myntra.text_to_image"},
        columns={"R@1": "r@1", "R@10": "r@10", "MRR": "mrr"},
    ),
    "myntra_named": Table(
        corner="query, among the unseen products",
        rows={
            f"{name.replace('_', ' ')}, {kind}": f"myntra.search.{name}.{kind}"
            for name in ("category", "sub_category", "article_type", "colour")
            for kind in ("image", "title", "fused")
        },
        columns={"P@1": "p@1", "P@10": "p@10"},
    ),
    "myntra_types": Table(
        corner="Myntra, article type by a linear probe",
        rows={
            "picture": "myntra.article_type.image_probe.accuracy",
            "title": "myntra.article_type.title.accuracy",
            "both": "myntra.article_type.fused.accuracy",
            "title without words of types and colours": (
                "myntra.article_type.unnamed_title.accuracy"
            ),
            "both, the same": "myntra.article_type.unnamed_fused.accuracy",
        },
        columns={"accuracy": ""},
    ),
    "search": Table(
        corner="41,237 products, one core",
        rows={
            "words → ten results, queries/s": "search.text.qps",
            "picture → ten results, queries/s": "search.image.qps",
            "exact, of an embedded query, queries/s": "search.exact.qps",
            "approximate index, the same": "search.index.qps",
            "approximate index, recall@10 against exact": "search.index.recall@10",
        },
        columns={"measured": ""},
    ),
    "search_modes": Table(
        corner="mode",
        rows={mode: f"search.find.{mode}" for mode in ("hybrid", "vector", "lexical")},
        columns={
            "colour and type: P@10": "type_colour.p@10",
            "four words of a title: MRR": "title.mrr",
            "one of them misspelt: MRR": "typo.mrr",
        },
    ),
    "embed": Table(
        corner="bulk embedding",
        rows={
            "items per second, ratio to a plain loop": "embed.ratio_to_loop",
            "the same, without bfloat16": "embed.float32.ratio_to_loop",
            "peak memory, 10,000 rows": "embed.peak_gb_10k",
            "peak memory, 1,000,000 rows": "embed.peak_gb_1m",
        },
        columns={"measured": ""},
    ),
    "evaluation": Table(
        corner="20,000 users, 100,000 items",
        rows={
            "scores of vectors": "evaluation.vectors.seconds",
            "scores alike for everybody": "evaluation.popularity.seconds",
            "all scores alike but ten": "evaluation.few.seconds",
            "table of the three systems": "evaluation.table.seconds",
            "seconds of RecBole, times ours, top 100": "evaluation.ratio_to_peer",
            "seconds of ranx on finished lists, times ours": "evaluation.ratio_to_ranx",
            "peak memory, with the vectors of users and items": "evaluation.peak_gb",
            "peak memory, scores alike for everybody": "evaluation.peak_gb_20k_users",
            "the same, 1,000,000 users": "evaluation.peak_gb_1m_users",
            "memory of each further user": "evaluation.kb_per_user",
        },
        columns={"measured": ""},
    ),
    "vision_speed": Table(
        corner="speed",
        rows={
            "training, ratio to the same model fed from memory": "vision_train.ratio_to_in_memory",
            "embedding, ratio to ImageFolder and DataLoader": "vision_embed.ratio_to_dataloader",
            "the same in bfloat16": "vision_embed.bf16.ratio_to_dataloader",
            "the same in int8 ONNX": "vision_embed.int8.ratio_to_dataloader",
            "int8 ONNX, times float32 eager": "vision_int8.speedup",
            "int8 ONNX, points of accuracy lost": "vision_int8.accuracy_lost",
        },
        columns={"measured": ""},
    ),
}
