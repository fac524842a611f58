"""What docs/hayhooks.md shows, run."""

import re
from pathlib import Path

from tests.serve.conftest import RunningServer, without_llm

PAGE = (Path(__file__).parents[3] / "docs" / "hayhooks.md").read_text("utf-8")


def shown(language: str, start: str) -> str:
    """Give the fenced block of a language that begins with a line."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    return next(block for block in blocks if block.startswith(start))


def test_the_examples_of_the_page_answer_as_it_says(tmp_path: Path) -> None:
    """The plain pipeline and the wrapper of the page load, and give what the page says."""
    (tmp_path / "first.yml").write_text(shown("yaml", "# first.yml"), "utf-8")
    (tmp_path / "greeting").mkdir()
    (tmp_path / "greeting" / "pipeline_wrapper.py").write_text(shown("python", "# greeting/"), "utf-8")
    (tmp_path / "greeting" / "words.py").write_text('GREETING = "Hello"\n', "utf-8")
    body = re.search(r"-d '(\{.*?\})'", shown("sh", "curl"))
    assert body is not None
    with RunningServer(without_llm(tmp_path, pipelines_dir=tmp_path)) as client:
        first = client.post(
            "/first/run", content=body[1], headers={"Content-Type": "application/json"}
        ).json()
        greeting = client.post("/greeting/run", json={"name": "Ada"}).json()
        chat = {"model": "greeting", "messages": [{"role": "user", "content": "Ada"}]}
        said = client.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"]
        assert client.get("/ready").json()["problems"] == []
    [document] = first["result"]["documents"]
    assert document.pop("id")
    assert f'"id": "…", {str(document)[1:]}'.replace("'", '"').replace("None", "null") in PAGE
    assert greeting == {"result": "Hello, Ada."}
    assert said == "Hello, Ada."
