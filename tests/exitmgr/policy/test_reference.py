"""What is written about the configuration is what it is."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from exitmgr.policy.exact_yaml import read_yaml
from exitmgr.policy.layers import Sources, effective, flat, section_at
from exitmgr.policy.reference import written_reference
from exitmgr.policy.schema import DEFAULTS, Policy
from exitmgr.policy.validation import problems_of

ROOT = Path(__file__).parents[3]


def test_the_reference_is_current() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == written_reference(), "run: manage.py policy reference > docs/configuration.md"


def test_the_file_that_comes_with_it_says_every_default_and_nothing_else() -> None:
    document = read_yaml((ROOT / "config" / "trading.yaml").read_text())
    assert problems_of(document) == {}
    assert effective(Sources(file=document).layers()) == Policy()
    sections = {name: document[name] for name in Policy.model_fields}
    assert set(flat(sections)) == set(flat(DEFAULTS))
    assert {name: document[name] for name in ("accounts", "symbols")} == {"accounts": {}, "symbols": {}}


def test_every_key_is_described() -> None:
    sections: list[type[BaseModel]] = [Policy]
    for model in sections:
        for name, field in model.model_fields.items():
            section = section_at(name, model)
            if section is not None:
                sections.append(section)
            else:
                assert field.description, name
    assert len(sections) == 14


def test_the_examples_in_it_are_valid() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    examples = [part.split("```", 1)[0] for part in text.split("```yaml\n")[1:]]
    assert len(examples) == 1
    assert [problems_of(read_yaml(example)) for example in examples] == [{}]
