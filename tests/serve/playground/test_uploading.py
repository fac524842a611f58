from pathlib import Path

from tests.serve.playground.conftest import Playground, focused

# Remembers each text that a live region tells, in order.
_LISTEN = """
window.told = [];
new MutationObserver(() => {
  const text = document.querySelector('.upload [role=status]')?.textContent;
  if (text && text !== window.told.at(-1)) window.told.push(text);
}).observe(document.getElementById('uploads'), {childList: true, subtree: true, characterData: true});
"""


def test_upload_tells_how_far_it_is_and_what_became_of_each_file(page: Playground, files: Path) -> None:
    """Files are sent and indexed with progress; the one that fails is named with its reason, and the list is new."""
    (files / "canal.md").write_text("# The canal\n\nThe canal is 87 km long.")
    (files / "blob.bin").write_bytes(bytes(range(256)))
    page.load(tenant="uploads")
    assert "uploads has no documents yet" in page.find("#holdings").text
    page.script(_LISTEN)
    page.find("#files").send_keys(f"{files / 'canal.md'}\n{files / 'blob.bin'}")
    page.find("#upload button").click()
    page.until(lambda: page.texts(".holdings li"))
    told = page.script("return window.told")
    assert told[0] == "Sending…"
    assert any(text.startswith("Indexing: ") and text.endswith(" of 2 documents") for text in told)
    assert told[-1] == "1 document indexed, 1 new chunk, 1 failed."
    assert page.find(".upload progress").get_property("value") == 1
    [outcome] = page.texts(".outcomes li")
    assert outcome.startswith("blob.bin: failed, ")
    assert page.texts(".holdings li") == ["The canal canal.md 1 chunk"]
    assert page.find("#files").get_property("value") == ""


def test_refused_upload_shows_the_problem(page: Playground, files: Path) -> None:
    """A file over the limit is refused with the service's words and the request's id; nothing is uploaded."""
    (files / "large.txt").write_text("x" * 100_001)
    page.load(tenant="refused")
    page.find("#files").send_keys(str(files / "large.txt"))
    page.find("#upload button").click()
    problem = page.find(".upload .problem").text
    assert "'large.txt' is larger than 100000 bytes" in problem
    assert "Request id: " in problem
    page.until(lambda: page.texts(".upload [role=status]") == ["Not uploaded."])


def test_dropped_files_are_uploaded_instead_of_opened(page: Playground) -> None:
    """A file dropped anywhere on the page is uploaded for the tenant, and the page stays."""
    page.load(tenant="dropped")
    page.script(
        "const carried = new DataTransfer();"
        "carried.items.add(new File(['The bridge is 1,280 metres long.'], 'bridge.txt'));"
        "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true}))"
    )
    page.until(lambda: page.texts(".holdings li") == ["bridge.txt 1 chunk"])


def test_upload_can_be_cancelled_while_it_is_sent(page: Playground, files: Path) -> None:
    """Over a slow line the bar shows how much is sent; Cancel breaks it off, and nothing is uploaded."""
    (files / "slow.txt").write_text("x" * 90_000)
    page.load(tenant="slow")
    line = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20_000}
    page.command("Network.enable")
    page.command("Network.emulateNetworkConditions", **line)
    try:
        page.find("#files").send_keys(str(files / "slow.txt"))
        page.find("#upload button").click()
        page.until(lambda: 0 < page.find(".upload progress").get_property("value") < 1)
        page.find(".upload > button").click()
        page.until(lambda: page.texts(".upload > [role=status]") == ["Cancelled: nothing was sent."])
    finally:
        page.command("Network.emulateNetworkConditions", **(line | {"uploadThroughput": -1}))
    assert focused(page) == "files"
    assert page.client.get("/ingest/", params={"tenant_id": "slow"}).json()["items"] == []


def test_job_can_be_cancelled_while_it_indexes(page: Playground, files: Path) -> None:
    """Cancel ends the job too, and the page tells that it was cancelled."""
    names = [files / f"long-{number}.txt" for number in range(12)]
    for number, name in enumerate(names):
        name.write_text(" ".join(f"Line {line} of text {number} is a sentence." for line in range(2_000)))
    page.load(tenant="cancelled")
    page.find("#files").send_keys("\n".join(map(str, names)))
    page.find("#upload button").click()
    page.until(lambda: page.find(".upload > [role=status]").text.startswith("Indexing"))
    page.find(".upload > button").click()
    page.until(lambda: page.find(".upload > [role=status]").text.endswith(", cancelled."))
    [job] = page.client.get("/ingest/", params={"tenant_id": "cancelled"}).json()["items"]
    assert job["status"] == "cancelled"


def test_long_list_of_documents_comes_in_pages(page: Playground) -> None:
    """More documents than a page holds are shown on demand."""
    page.ingest("many", [{"id": f"note-{n:03}", "text": f"Note {n}."} for n in range(60)])
    page.load(tenant="many")
    page.until(lambda: len(page.all(".holdings li")) == 50)
    page.find("#holdings button").click()
    page.until(lambda: len(page.all(".holdings li")) == 60)
    assert not page.all("#holdings button")[0].is_displayed()
    assert len(set(page.texts(".holdings li"))) == 60
