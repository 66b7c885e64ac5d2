"""Online Retail: a year of purchases at a British gift wholesaler."""

import gzip
import io
from pathlib import Path

import polars as pl

from recsys.data.progress import Progress
from recsys.data.sources.staging import Imported, require_columns, staging, write_tables
from recsys.data.tables import reading
from recsys.errors import DataError

_COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
)
_DATES = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")  # as here, and as other copies have it
_NAMES = ("online-retail.csv.gz", "online-retail.csv", "Online Retail.csv")


def import_online_retail(src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
    """Write the purchases of Chen et al. (2012, https://doi.org/10.24432/C5BW33) as tables.

    An event is an invoice line with a customer, quantity > 0, price > 0, and a stock code that
    begins with five digits. Cancellations (negative quantities) are dropped and undo nothing;
    postage and fees have other codes. Times are the shop's own, taken as UTC. An item's title is
    its most frequent spelling and its price the median, both over those lines.

    Args:
        src: The table as CSV, plain or gzipped, or its folder.
        out: Folder to make; it gets ``items.parquet`` and ``events.parquet``.
        progress: Ignored, because the import takes a second.

    Raises:
        DataError: If ``src`` is not the published table.
        SchemaError: If the published table lacks a column.
        InvalidArgumentError: If ``out`` is in use.
    """
    path = _find(src)
    lines = _purchases(path)
    if not len(lines):
        raise DataError(f"{path} must hold purchases, got none")
    events = lines.select(
        "user_id",
        "item_id",
        "timestamp",
        "quantity",
        kind=pl.lit("purchase"),
        value=(pl.col("quantity") * pl.col("price")).round(2),
    )
    with staging(out) as scratch:
        return write_tables(scratch, out, items=_items(lines), events=events)


def _find(src: Path) -> Path:
    candidates = [src / name for name in _NAMES] if src.is_dir() else [src]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"src must be the table or a folder with one of {_NAMES}, got {src}")


def _purchases(path: Path) -> pl.DataFrame:
    """Return the lines that are purchases, oldest first."""
    with reading(path):
        table = pl.read_csv(io.BytesIO(_utf8(path)), infer_schema=False)
    require_columns(table, _COLUMNS, src=path)
    dates = (pl.col("InvoiceDate").str.to_datetime(form, strict=False) for form in _DATES)
    lines = table.select(
        user_id=pl.col("CustomerID").str.strip_suffix(".0"),
        item_id="StockCode",
        title=pl.col("Description").str.strip_chars(),
        timestamp=pl.coalesce(dates),
        quantity=pl.col("Quantity").cast(pl.Float64, strict=False),
        price=pl.col("UnitPrice").cast(pl.Float64, strict=False),
    )
    purchases = lines.filter(
        pl.col("user_id").is_not_null(),
        pl.col("quantity") > 0,
        pl.col("price") > 0,
        pl.col("item_id").str.contains(r"^\d{5}"),
    )
    if purchases["timestamp"].has_nulls():
        raise DataError(f"InvoiceDate of {path} must be written like {_DATES}, got something else")
    return purchases.sort("timestamp", maintain_order=True)


def _utf8(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:  # the pound sign of some copies
        return data.decode("cp1252", errors="replace").encode("utf-8")
    return data


def _items(lines: pl.DataFrame) -> pl.DataFrame:
    spellings = lines.drop_nulls("title").group_by("item_id", "title").len()
    titles = (
        spellings.sort("len", "title", descending=[True, False])
        .group_by("item_id", maintain_order=True)
        .first()
    )
    prices = lines.group_by("item_id").agg(pl.col("price").median())
    items = prices.join(titles, on="item_id", how="left")
    return items.select("item_id", "title", "price").sort("item_id")
