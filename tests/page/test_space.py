"""README.md of the page's folder, as Hugging Face reads it."""

import ast
import re
from inspect import signature

import pytest
from huggingface_hub import HfApi, SpaceCard

from utils.page import space_readme
from utils.words import verdict_sentence

VERDICT = {"right": 33, "n": 36, "guess": 18, "p": 0.0, "better": True, "side": "test"}


def test_the_front_matter_is_of_a_static_space():
    """Read by huggingface_hub's own parser: every field, and the headers under which threads work."""
    card = SpaceCard(space_readme("sea_life", verdict_sentence(VERDICT), "apache-2.0"))
    assert card.data.to_dict() == {
        "title": "sea_life",
        "sdk": "static",
        "app_file": "index.html",
        "license": "apache-2.0",
        "pinned": False,
        "custom_headers": {
            "cross-origin-embedder-policy": "require-corp",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "cross-origin",
        },
    }
    assert verdict_sentence(VERDICT) in card.text


def test_an_unknown_licence_is_left_out():
    """No field is better than an empty one, which Hugging Face refuses."""
    assert "license" not in SpaceCard(space_readme("sea_life", verdict_sentence(VERDICT))).data.to_dict()


@pytest.mark.parametrize(
    "name", ["true", "1.5", "a: b", "# wren", "'quoted'", "морской огурец", "*a* [b](c) {d}", "---"]
)
def test_any_name_is_a_title_and_no_markup(name):
    """Names that YAML would take for another kind of value, or Markdown for a link."""
    card = SpaceCard(space_readme(name, verdict_sentence(VERDICT)))
    assert card.data.title == name
    (heading,) = re.findall(r"^# (.*)$", card.text, flags=re.M)
    assert re.sub(r"\\(.)", r"\1", heading) == name
    assert not re.search(r"(?<!\\)[*\[\]_`#]", heading)


def test_the_lines_to_publish_with_are_python():
    """They call functions of huggingface_hub with arguments that it takes, on the folder as it lies."""
    (block,) = re.findall(r"```python\n(.+?)```", space_readme("pets", verdict_sentence(VERDICT)), flags=re.S)
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call) and node.args + node.keywords]
    assert [call.func.attr for call in calls] == ["create_repo", "upload_folder"]
    for call in calls:
        assert {keyword.arg for keyword in call.keywords} <= set(signature(getattr(HfApi, call.func.attr)).parameters)
