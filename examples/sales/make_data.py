"""Writes data/sales.csv: weekly sales of an invented chain of garden cafés, with the flaws that real exports have.

The numbers follow a model (season, trend, weather, promotions, a price elasticity for each product), so that a fit has
something to find. The seed is fixed: running it again gives the same file, byte for byte.

    python examples/sales/make_data.py
"""

from __future__ import annotations

import csv
import math
import random
from datetime import date, timedelta
from pathlib import Path
from typing import Any

SEED = 20231204
FIRST_WEEK = date(2023, 1, 2)
WEEKS = 152
COLUMNS = [
    "week",
    "store",
    "region",
    "product",
    "category",
    "units",
    "unit_price",
    "discount",
    "revenue",
    "temperature",
]

# name: region, size of the store, degrees above the average of the country
STORES = {
    "Harbour": ("North", 1.25, -2.0),
    "Old Mill": ("North", 0.80, -1.5),
    "Station": ("Centre", 1.45, 0.4),
    "Market Hall": ("South", 1.00, 2.3),
}
# name: category, weekly units of a store of size 1, list price, price elasticity,
#       season (height, week of the peak), growth a year
PRODUCTS: dict[str, tuple[str, float, float, float, float, int, float]] = {
    "Espresso": ("Hot drinks", 420, 2.40, -0.9, 0.16, 2, 0.03),
    "Cinnamon latte": ("Hot drinks", 210, 4.10, -1.3, 0.42, 50, 0.09),
    "Iced tea": ("Cold drinks", 190, 3.20, -1.7, 0.75, 29, 0.06),
    "Elderflower soda": ("Cold drinks", 130, 3.60, -1.9, 0.62, 27, 0.12),
    "Almond croissant": ("Bakery", 310, 3.30, -1.4, 0.10, 48, 0.02),
    "Tomato seedling": ("Garden", 60, 4.90, -2.4, 1.45, 18, -0.04),
}
HOLIDAY_WEEKS = {51: 0.22, 52: 0.18, 16: 0.10}


def temperature_of(week: int, offset: float, rng: random.Random) -> float:
    """Mean outdoor temperature of a week in degrees Celsius."""
    return 10.5 + offset + 9.0 * math.cos(2 * math.pi * (week - 29) / 52.18) + rng.gauss(0, 1.7)


def row_of(index: int, store: str, product: str, temperature: float, rng: random.Random) -> dict[str, Any]:
    """One line of the file, still without flaws."""
    region, size, _ = STORES[store]
    category, units, list_price, elasticity, height, peak, growth = PRODUCTS[product]
    day = FIRST_WEEK + timedelta(weeks=index)
    week = day.isocalendar().week
    years = index / 52.18
    discount = rng.choice([0.10, 0.15, 0.20, 0.25]) if rng.random() < 0.14 else 0.0
    price = list_price * (1.03 ** int(years)) * (1 - discount)
    log_units = (
        math.log(units * size)
        + growth * years
        + height * math.cos(2 * math.pi * (week - peak) / 52.18)
        + elasticity * math.log(price / list_price)
        + HOLIDAY_WEEKS.get(week, 0.0)
        + (0.018 if category == "Cold drinks" else 0.0) * (temperature - 10.5)
        + rng.gauss(0, 0.085)
    )
    sold = max(0, round(math.exp(log_units)))
    return {
        "week": day.isoformat(),
        "store": store,
        "region": region,
        "product": product,
        "category": category,
        "units": sold,
        "unit_price": f"{price:.2f}",
        "discount": f"{discount:.2f}",
        "revenue": f"{sold * round(price, 2):.2f}",
        "temperature": f"{temperature:.1f}",
    }


def flawed(row: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    """What an export makes of a line: gaps, another spelling, now and then the same line twice."""
    if rng.random() < 0.012:
        row |= {"units": "", "revenue": ""}
    if rng.random() < 0.020:
        row["temperature"] = ""
    if rng.random() < 0.030:
        row["region"] = rng.choice([row["region"].lower(), f" {row['region']}"])
    return [row, row] if rng.random() < 0.004 else [row]


def make_rows() -> list[dict[str, Any]]:
    """All lines of the file, oldest first."""
    rng = random.Random(SEED)
    rows: list[dict[str, Any]] = []
    for index in range(WEEKS):
        week = (FIRST_WEEK + timedelta(weeks=index)).isocalendar().week
        for store, (_, _, offset) in STORES.items():
            temperature = temperature_of(week, offset, rng)
            for product in PRODUCTS:
                rows += flawed(row_of(index, store, product, temperature, rng), rng)
    return rows


def main(path: Path = Path(__file__).parent / "data" / "sales.csv") -> None:
    """Write the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(make_rows())


if __name__ == "__main__":
    main()
