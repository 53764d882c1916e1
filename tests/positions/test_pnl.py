"""P&L: known figures, and that no way of splitting or ordering fills can change the sum."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from positions.pnl import (
    EXACT,
    Book,
    Oversold,
    book_entry,
    book_exit,
    exit_pnl,
    profit_pct,
    slippage_bps,
    unrealized_pnl,
)
from positions.values import Side

LONG, SHORT = Side.LONG, Side.SHORT
D = Decimal

quantities = st.decimals("0.000000001", "1000000000", places=9)
prices = st.decimals("0.00000001", "1000000", places=8)
fees = st.decimals("0", "1000", places=4)
fills = st.tuples(quantities, prices, fees)
sides = st.sampled_from(Side)


def enter(side, *entries):
    book = Book(side)
    for quantity, price, fee in entries:
        book = book_entry(book, quantity=D(quantity), price=D(price), fee=D(fee))
    return book


def split(total, cuts):
    """Return parts of a quantity whose sum is exactly the quantity."""
    parts, rest = [], total
    for cut in cuts:
        part = (rest * cut / 100).quantize(D("1e-9"), rounding="ROUND_FLOOR")
        if 0 < part < rest:
            parts.append(part)
            rest -= part
    return [*parts, rest]


@pytest.mark.parametrize(
    ("_case", "side", "entries", "exits", "pnls", "realized"),
    [
        ("long wins", LONG, [(10, 100, 0)], [(10, 110, 0)], ["100"], "100"),
        ("long loses", LONG, [(10, 100, 0)], [(10, 99, 0)], ["-10"], "-10"),
        ("short wins", SHORT, [(10, 100, 0)], [(10, 90, 0)], ["100"], "100"),
        ("short loses", SHORT, [(10, 100, 0)], [(10, 101, 0)], ["-10"], "-10"),
        ("fees on both ends", LONG, [(10, 100, 1)], [(10, 110, 2)], ["98"], "97"),
        ("a ladder", LONG, [(10, 100, 0)], [(5, 102, 0), (3, 104, 0), (2, 99, 0)], ["10", "12", "-2"], "20"),
        ("an average entry", LONG, [(10, 100, 0), (10, 110, 0)], [(5, 110, 0)], ["25"], "25"),
        (
            "a fraction of a coin",
            LONG,
            [("0.3", "64000.1", 0)],
            [("0.1", "65000.2", 0)],
            ["100.01"],
            "100.01",
        ),
        (
            "more digits than a default context holds",
            LONG,
            [("123456789.123456789", "12345.12345679", "0.01")],
            [("123456789.123456789", "12345.12345678", 0)],
            ["-1.23456789123456789"],
            "-1.24456789123456789",
        ),
        (
            "an average that never ends in decimals",
            LONG,
            [(1, 100, 0), (1, 100, 0), (1, 101, 0)],
            [(1, 100, 0), (1, 100, 0), (1, 100, 0)],
            ["-0.3333333333333333333333333", "-0.3333333333333333333333334", "-0.3333333333333333333333333"],
            "-1",
        ),
    ],
)
def test_each_exit_and_their_sum(_case, side, entries, exits, pnls, realized):
    book = enter(side, *entries)
    for (quantity, price, fee), expected in zip(exits, pnls, strict=True):
        terms = {"quantity": D(quantity), "price": D(price), "fee": D(fee)}
        assert exit_pnl(book, **terms) == D(expected)
        book = book_exit(book, **terms)
    assert book.realized_pnl == D(realized)


def test_an_entry_fill_heard_after_an_exit_restates_what_was_realised():
    book = book_exit(enter(LONG, (10, 100, 0)), quantity=D(5), price=D(110))
    assert book.realized_pnl == 50
    book = book_entry(book, quantity=D(10), price=D(120))
    assert (book.average_entry, book.remaining, book.realized_pnl) == (110, 15, 0)
    book = book_exit(book, quantity=D(15), price=D(110))
    assert (book.remaining, book.realized_pnl) == (0, 0)


def test_selling_more_than_is_held_is_refused():
    book = enter(LONG, ("1.5", 100, 0))
    for sell in (book_exit, exit_pnl):
        with pytest.raises(Oversold) as refused:
            sell(book, quantity=D("1.500000001"), price=D(100))
        assert str(refused.value) == "a fill of 1.500000001 exceeds the remaining 1.5"
    assert (book.remaining, book.exit_value, book.realized_pnl) == (D("1.5"), 0, 0)


def test_an_empty_book_has_no_average_and_nothing_to_sell():
    assert Book(LONG).average_entry == 0
    with pytest.raises(Oversold):
        exit_pnl(Book(LONG), quantity=D(1), price=D(100))


@given(sides, st.lists(fills, min_size=1, max_size=4), st.lists(st.integers(1, 99), max_size=6), prices, fees)
def test_the_parts_of_an_exit_sum_to_the_whole(side, entries, cuts, price, fee):
    start = enter(side, *entries)
    whole = exit_pnl(start, quantity=start.remaining, price=price, fee=fee)
    parts = split(start.remaining, cuts)
    book, pnls = start, []
    for number, part in enumerate(parts):
        terms = {"quantity": part, "price": price, "fee": fee if number == 0 else D(0)}
        pnls.append(exit_pnl(book, **terms))
        book = book_exit(book, **terms)
    with localcontext(prec=EXACT):
        assert sum(pnls) == whole
        assert start.realized_pnl + whole == book.realized_pnl
    assert book.remaining == 0


@given(sides, st.lists(fills, min_size=1, max_size=4), st.lists(st.integers(1, 99), max_size=6), st.data())
def test_realised_after_closing_is_exit_value_less_entry_cost_less_fees_to_the_last_digit(side, entries, cuts, data):
    book = enter(side, *entries)
    paid = sum((Fraction(quantity) * Fraction(price) for quantity, price, _ in entries), Fraction())
    charged = sum((Fraction(fee) for *_, fee in entries), Fraction())
    got = Fraction()
    for part in split(book.remaining, cuts):
        price, fee = data.draw(prices), data.draw(fees)
        got += Fraction(part) * Fraction(price)
        charged += Fraction(fee)
        book = book_exit(book, quantity=part, price=price, fee=fee)
    assert Fraction(book.realized_pnl) == side * (got - paid) - charged


@given(st.lists(fills, min_size=1, max_size=4), st.integers(1, 100), prices)
def test_a_short_mirrors_a_long(entries, share, price):
    free = [(quantity, at, 0) for quantity, at, _ in entries]
    long, short = enter(LONG, *free), enter(SHORT, *free)
    quantity = (long.remaining * share / 100).quantize(D("1e-9"), rounding="ROUND_FLOOR")
    gained = book_exit(long, quantity=quantity, price=price)
    lost = book_exit(short, quantity=quantity, price=price)
    with localcontext(prec=EXACT):
        assert gained.realized_pnl == -lost.realized_pnl


@given(
    sides,
    st.lists(fills, min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(1, 24), prices, fees), max_size=4),
    st.randoms(),
)
def test_the_order_in_which_fills_are_heard_changes_nothing(side, entries, sales, random):
    first, *later = entries
    exits = [
        ((D(first[0]) * share / 100).quantize(D("1e-9"), rounding="ROUND_FLOOR"), price, fee)
        for share, price, fee in sales
    ]
    news = [(book_entry, *fill) for fill in later] + [(book_exit, *fill) for fill in exits]
    books = []
    for _ in range(2):
        book = enter(side, first)
        for verb, quantity, price, fee in news:
            book = verb(book, quantity=quantity, price=price, fee=fee)
        books.append(book)
        random.shuffle(news)
    assert books[0] == books[1]


@pytest.mark.parametrize(
    ("_case", "side", "price", "amount", "pct"),
    [
        ("long up", LONG, "101.5", "15", "1.5"),
        ("long down", LONG, "98", "-20", "-2"),
        ("short down", SHORT, "98", "20", "2"),
        ("short up", SHORT, "101.5", "-15", "-1.5"),
        ("unmoved", SHORT, "100", "0", "0"),
    ],
)
def test_what_leaving_now_would_bring(_case, side, price, amount, pct):
    assert unrealized_pnl(side=side, quantity=D(10), average_entry=D(100), price=D(price)) == D(amount)
    assert profit_pct(side=side, average_entry=D(100), price=D(price)) == D(pct)


def test_profit_of_nothing_is_zero():
    assert profit_pct(side=LONG, average_entry=D(0), price=D(5)) == 0


@pytest.mark.parametrize(
    ("_case", "exit_side", "expected", "got", "bps"),
    [
        ("sold lower is worse", -1, "100", "99", "100"),
        ("sold higher is better", -1, "100", "101", "-100"),
        ("bought higher is worse", 1, "100", "101.5", "150"),
        ("bought lower is better", 1, "100", "99.99", "-1"),
        ("as expected", 1, "100", "100", "0"),
        ("nothing was expected", 1, "0", "100", "0"),
    ],
)
def test_slippage(_case, exit_side, expected, got, bps):
    assert slippage_bps(exit_side=exit_side, expected=D(expected), got=D(got)) == D(bps)
