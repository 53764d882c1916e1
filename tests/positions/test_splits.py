"""Telling a split from a trade, and the arithmetic of one."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from positions.splits import is_whole_multiple, parse_ratio, price_after, scaled, spell_ratio, split_factor

D = Decimal


@pytest.mark.parametrize(
    ("_case", "held", "price", "held_now", "price_now", "factor"),
    [
        ("two for one", "10", "100", "20", "50", "2"),
        ("ten for one", "7", "900", "70", "90", "10"),
        ("three for two", "10", "90", "15", "60", "3/2"),
        ("one for twenty", "400", "0.5", "20", "10", "1/20"),
        ("cash for the fraction", "415", "0.5", "20", "10", "1/20"),
        ("rounded to the cent", "3", "10", "9", "3.33", "3"),
        ("half sold", "10", "100", "5", "100", None),
        ("doubled at the price", "10", "100", "20", "100", None),
        ("doubled, far below", "10", "100", "20", "75", None),
        ("nothing changed", "10", "100", "10", "100", None),
        ("only the average changed", "10", "100", "10", "50", None),
        ("nothing left", "10", "100", "0", "0", None),
        ("a hundred and one for one is none", "1", "101", "101", "1", None),
        ("too small for the reverse", "5", "1", "0.5", "10", None),
    ],
)
def test_what_looks_like_a_split(_case, held, price, held_now, price_now, factor):
    found = split_factor(held=D(held), price=D(price), held_now=D(held_now), price_now=D(price_now))
    assert found == (None if factor is None else Fraction(factor))


def test_an_exact_multiple_at_any_price():
    assert is_whole_multiple(held=D(10), held_now=D(40))
    assert is_whole_multiple(held=D(10), held_now=D(15))
    assert not is_whole_multiple(held=D(10), held_now=D(13))
    assert not is_whole_multiple(held=D(0), held_now=D(13))


@pytest.mark.parametrize(
    ("text", "factor"), [("4:1", Fraction(4)), ("4", Fraction(4)), ("1:10", Fraction(1, 10)), ("3:2", Fraction(3, 2))]
)
def test_a_ratio_is_read(text, factor):
    assert parse_ratio(text) == factor
    assert parse_ratio(spell_ratio(factor)) == factor


@pytest.mark.parametrize("text", ["", "1", "1:1", "0:1", "1:0", "4/1", "-4", "4.5", "1234", "four", "٤"])
def test_what_is_no_ratio_is_refused(text):
    with pytest.raises(ValueError, match="is no ratio"):
        parse_ratio(text)


def test_what_was_paid_stays():
    factor = Fraction(3)
    assert scaled(D(10), factor) == 30
    assert price_after(D(100), factor) == D("33.333333333333333333")
    assert scaled(price_after(D(99), factor), factor) == 99
