"""Names from data stay text wherever they go (docs/security.md; the others: test_report, test_storage, test_sql)."""

from pathlib import Path

import networkx

ROOT = Path(__file__).parent.parent
EVIL = ["<img src=x onerror=alert(1)>", "'; drop table units;--", "]]>", "a\nb", "\u202eabc", '"&<']


def test_nothing_is_sent_to_prefect_as_markdown():
    """Names would be rendered there; no artifact is made at all."""
    texts = [file.read_text() for room in ("flows", "tasks") for file in (ROOT / room).rglob("*.py")]
    assert texts
    assert not any("prefect.artifacts" in text or "markdown" in text for text in texts)


def test_graphml_holds_any_layer_name():
    graph = networkx.DiGraph()
    for number, name in enumerate(EVIL):
        graph.add_node(number, layer=name)
    back = networkx.parse_graphml("\n".join(networkx.generate_graphml(graph)), node_type=int)
    assert [back.nodes[number]["layer"] for number in range(len(EVIL))] == EVIL
