"""Which layer wins, and that it can be told why."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from exitmgr.policy.documents import as_json, differences
from exitmgr.policy.layers import Sources, effective, explain
from exitmgr.policy.schema import InvalidPolicy, Policy

D = Decimal

STOP = "exit_manager.stop_loss.threshold_pct"


def stop(pct: Any) -> dict[str, Any]:
    return {"exit_manager": {"stop_loss": {"threshold_pct": pct}}}


#: Every place that can set the stop, the weakest first, each with a value of its own.
PLACES = [
    ("default", D(1)),
    ("file", D(2)),
    ("environment", D(3)),
    ("version 7", D(4)),
    ("file, account paper", D(5)),
    ("version 7, account paper", D(6)),
    ("file, symbol AAPL", D(7)),
    ("version 7, symbol AAPL", D(8)),
    ("position", D(9)),
]


def sources_up_to(count: int) -> tuple[Sources, dict[str, Any]]:
    """Return the layers of the first places, and the position's own settings."""
    file: dict[str, Any] = {"accounts": {}, "symbols": {}}
    version: dict[str, Any] = {"accounts": {}, "symbols": {}}
    environment: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in PLACES[1:count]:
        place = {"file": file, "environment": environment, "version 7": version, "position": own}.get(name)
        if place is None:
            document = file if name.startswith("file") else version
            place = (
                document["accounts"].setdefault("paper", {})
                if "account" in name
                else document["symbols"].setdefault("AAPL", {})
            )
        place.update(stop(value))
    return Sources(file, environment, version, 7), own


@pytest.mark.parametrize("count", range(1, len(PLACES) + 1))
def test_each_layer_goes_over_those_before_it(count: int) -> None:
    sources, own = sources_up_to(count)
    layers = sources.layers(account="paper", symbol="AAPL", overrides=own)
    policy = effective(layers)
    assert policy.exit_manager.stop_loss.threshold_pct == PLACES[count - 1][1]
    (told,) = explain(STOP, layers, policy=policy)
    assert (told.path, told.value, told.source) == (STOP, PLACES[count - 1][1], PLACES[count - 1][0])
    assert list(told.says) == PLACES[:count]


@pytest.mark.parametrize(
    ("_case", "account", "symbol", "value"),
    [
        ("nobody in particular", "", "", D(4)),
        ("another account", "other", "", D(4)),
        ("the account", "paper", "MSFT", D(6)),
        ("the symbol in another account", "other", "AAPL", D(8)),
    ],
)
def test_overrides_hold_for_their_own_alone(_case: str, account: str, symbol: str, value: D) -> None:
    sources, _ = sources_up_to(len(PLACES))
    assert effective(sources.layers(account=account, symbol=symbol)).exit_manager.stop_loss.threshold_pct == value


def test_sections_merge_and_everything_else_is_replaced() -> None:
    sources = Sources(
        file={
            "exit_manager": {"stop_loss": {"enabled": False}},
            "trade_exit": {"trailing": {"pct": "1", "activation_pct": "2"}, "break_even": {"at_profit_pct": "1"}},
            "risk_reward": {"symbol_specific_ratios": {"GME": "2.5", "TSLA": None}},
        },
        version={
            **stop("1.5"),
            "trade_exit": {"trailing": {"distance": "3"}, "break_even": {"after_rung": 1}},
            "risk_reward": {"symbol_specific_ratios": {"GME": "2.6"}},
        },
        number=1,
    )
    policy = effective(sources.layers())
    assert (policy.exit_manager.stop_loss.enabled, policy.exit_manager.stop_loss.threshold_pct) == (False, D("1.5"))
    assert policy.exit_manager.profit_taking.threshold_pct == D(2)
    assert [(trail.pct, trail.distance, trail.activation_pct) for trail in policy.trade_exit.trailing] == [
        (None, D(3), None)
    ]
    assert policy.trade_exit.break_even is not None
    assert (policy.trade_exit.break_even.at_profit_pct, policy.trade_exit.break_even.after_rung) == (None, 1)
    assert policy.risk_reward.symbol_specific_ratios == {"AAPL": D("1.8"), "SPY": D("1.2"), "GME": D("2.6")}


def test_without_any_layer_the_defaults_hold() -> None:
    assert effective(Sources().layers()) == Policy()


def test_a_section_is_explained_key_by_key() -> None:
    layers = Sources(file=stop(2)).layers()
    told = explain("exit_manager.stop_loss", layers, policy=effective(layers))
    assert [(one.path.rsplit(".", 1)[1], one.value, one.source) for one in told] == [
        ("enabled", True, "default"),
        ("order_type", "market", "default"),
        ("time_in_force", None, "default"),
        ("threshold_pct", D(2), "file"),
    ]


def test_a_ratio_of_one_symbol_is_explained() -> None:
    layers = Sources(file={"risk_reward": {"symbol_specific_ratios": {"GME": "2.5"}}}).layers()
    (told,) = explain("risk_reward.symbol_specific_ratios.GME", layers, policy=effective(layers))
    assert (told.value, told.source, told.says) == (D("2.5"), "file", (("file", "2.5"),))


@pytest.mark.parametrize(
    ("_case", "path", "text"),
    [
        ("a section nobody knows", "exits", "is unknown; known here: exit_manager, trade_exit, risk_reward"),
        ("a key nobody knows", "exit_manager.stop_loss.pct",
         "is unknown; known here: enabled, order_type, time_in_force, threshold_pct"),
        ("a ratio nobody set", "risk_reward.symbol_specific_ratios.GME", "has no value"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_refused(_case: str, path: str, text: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        explain(path, [], policy=Policy())
    assert list(caught.value.problems) == [path]
    assert caught.value.problems[path].startswith(text)


def test_differences_are_told_path_by_path() -> None:
    before = Sources(file=stop("1.50"))
    after = Sources(
        file=stop("1.50"),
        version={
            **stop(D("1.5")),
            "trade_exit": {"mode": "atr", "trailing": [{"pct": "1"}]},
            "symbols": {"AAPL": stop("3")},
        },
        number=2,
    )
    assert differences(before, after) == {
        "trade_exit.mode": ("percent", "atr"),
        "trade_exit.trailing": ([], [{"pct": "1"}]),
        "symbols.AAPL.exit_manager.stop_loss.threshold_pct": (None, "3"),
    }
    assert differences(after, after) == {}


def test_documents_are_stored_exactly() -> None:
    given = {"a": D("0.10"), "b": [D("1E-7"), 5, True, None], "c": {"d": "x"}}
    assert as_json(given) == {"a": "0.10", "b": ["0.0000001", 5, True, None], "c": {"d": "x"}}
