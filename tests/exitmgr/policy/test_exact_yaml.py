"""YAML is read exactly, and what two readers could understand differently is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exitmgr.policy.exact_yaml import LARGEST_BYTES, Unreadable, read_yaml

D = Decimal


@pytest.mark.parametrize(
    ("_case", "text", "value"),
    [
        ("nothing", "", None),
        ("only remarks", "# later\n", None),
        ("a decimal keeps its digits", "a: 0.10", {"a": D("0.10")}),
        ("a decimal that no float holds", "a: 0.1000000000000000055", {"a": D("0.1000000000000000055")}),
        ("an exponent", "a: 1e-3", {"a": D("0.001")}),
        ("a point first", "a: .5", {"a": D("0.5")}),
        ("a whole number", "a: -12", {"a": -12}),
        ("a leading zero is no octal", "a: 010", {"a": 10}),
        ("true and false", "{a: true, b: False}", {"a": True, "b": False}),
        ("yes is a word", "a: yes", {"a": "yes"}),
        ("a symbol that other readers take for true", "ON: {a: 1}", {"ON": {"a": 1}}),
        ("a minute and a half is a word", "a: 1:30", {"a": "1:30"}),
        ("a date is a word", "a: 2026-03-02", {"a": "2026-03-02"}),
        ("not a number is a word", "a: .nan", {"a": ".nan"}),
        ("infinity is a word", "a: .inf", {"a": ".inf"}),
        ("null", "{a: null, b: ~, c: }", {"a": None, "b": None, "c": None}),
        ("lists", "a: [1, 2.5]", {"a": [1, D("2.5")]}),
        ("an anchor used again", "a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("merged keys", "a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_reads(_case: str, text: str, value: object) -> None:
    found = read_yaml(text)
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("_case", "text", "message"),
    [
        ("a key twice", "a: 1\nb: 2\na: 3", "line 3, column 1: 'a' is given twice"),
        ("a key twice, further in", "x:\n  a: 1\n  a: 1", "line 3, column 3: 'a' is given twice"),
        ("a number as a key", "600519: {}", "line 1, column 1: a key must be text; write '600519' in quotes"),
        ("true as a key", "true: {}", "line 1, column 1: a key must be text; write 'true' in quotes"),
        ("a list as a key", "? [a]\n: 1", "line 1, column 3: a key must be a word"),
        ("half a list", "a: [1", "line 1, column 6: expected ',' or ']', but got '<stream end>'"),
        ("two documents", "a: 1\n---\nb: 1", "line 2, column 1: but found another document"),
        ("a tab", "a:\n\tb: 1", "line 2, column 1: found character '\\t' that cannot start any token"),
        ("a Python object", "a: !!python/object:os.system {}", "line 1, column 4: could not determine a constructor "
         "for the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("an anchor nobody set", "a: *x", "line 1, column 4: found undefined alias 'x'"),
        ("too long", "#" * (LARGEST_BYTES + 1), "has 1000001 characters; at most 1000000 are read"),
    ],
)  # fmt: skip
def test_refuses(_case: str, text: str, message: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_yaml(text)
    assert str(caught.value) == message


def test_what_is_nested_without_end_is_refused() -> None:
    with pytest.raises(Unreadable, match="cannot be read"):
        read_yaml("a: " + "[" * 5_000)


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(Unreadable, match="special characters are not allowed"):
        read_yaml("a: \x00")
