import re

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.serve.playground.conftest import CITED, QUESTION, Playground, focused
from tests.stub_llm import TEXT

# Every text that can be seen, with its contrast to what lies behind it (WCAG 2.2, 1.4.3) and what it must have.
_CONTRASTS = """
const numbers = colour => (colour.match(/[\\d.]+/g) ?? []).map(Number);
const luminance = rgb => {
  const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, a = 1] = numbers(getComputedStyle(at).backgroundColor);
    if (a === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!(own || element.matches('input, select, textarea')) || !element.checkVisibility() || element.disabled) continue;
  const style = getComputedStyle(element);
  const pair = [numbers(style.color).slice(0, 3), behind(element)].map(luminance).sort((a, b) => b - a);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  found.push([element.textContent.slice(0, 40), (pair[0] + 0.05) / (pair[1] + 0.05), large ? 3 : 4.5]);
}
return found;
"""


def press(page: Playground, *keys: str) -> None:
    """Press keys, wherever the focus is."""
    ActionChains(page.driver).send_keys(*keys).perform()


def test_everything_can_be_done_with_the_keyboard(page: Playground) -> None:
    """Tab reaches each control in the order of the page; Enter asks and opens a citation, Esc comes back from it."""
    page.load(tenant="acme", mode="crag")
    order = []
    while not order or order[-1] != "files":
        press(page, Keys.TAB)
        order.append(focused(page))
        assert len(order) < 20, order
    links = ["skip", "API", "State"]
    fields = ["tenant", "mode", "compared", "model", "k", "question"]
    assert order == [*links, *fields, "primary", "files"]
    page.script("document.getElementById('question').focus()")
    press(page, QUESTION)
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    press(page, "In metres?", Keys.ENTER)
    page.answered()
    assert page.find("#question").get_property("value") == f"{QUESTION}\nIn metres?"
    while focused(page) != "marker":
        press(page, Keys.TAB)
    press(page, Keys.ENTER)
    page.until(lambda: page.texts("#passage mark") == [CITED])
    assert focused(page) == "passage-close"
    press(page, Keys.ESCAPE)
    page.until(lambda: not page.driver.find_element("id", "passage").is_displayed())
    assert focused(page) == "marker"


def test_screen_reader_finds_names_landmarks_and_the_answer(page: Playground) -> None:
    """Each control has a name, the parts are landmarks or headings, and the answer is told when it is whole."""
    page.ask(mode="crag")
    page.answered()
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    tree = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    roles = {role for role, _ in tree}
    assert {"banner", "main", "complementary", "navigation", "article", "table"} <= roles
    controls = {"button", "textbox", "combobox", "spinbutton", "link", "DisclosureTriangle", "progressbar"}
    assert [node for node in tree if node[0] in controls and not node[1]] == []
    assert ("button", "Citation 1: Eiffel Tower") in tree
    assert {("heading", name) for name in ("Thresher playground", "Ask", "crag · acme", "Documents")} <= set(
        tree
    )
    answer = page.find(".answer")
    assert (answer.get_attribute("aria-live"), answer.get_attribute("aria-busy")) == ("polite", "false")
    assert re.match(r"Answered in [\d.]+ s$", page.find(".phase[role=status]").text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(page: Playground, scheme: str) -> None:
    """In light and dark, each text of answers, grades, problems, hints and controls can be read."""
    page.emulate(scheme)
    page.ask(mode="crag", compared="structured")
    page.answered(panels=2)
    page.script("for (const part of document.querySelectorAll('details')) part.open = true")
    contrasts = page.script(_CONTRASTS)
    page.find(".marker").click()
    contrasts += page.script(_CONTRASTS)
    page.ask(tenant="nobody")
    page.find(".problem")
    contrasts += page.script(_CONTRASTS)
    told = {text for text, _, _ in contrasts}
    assert {"Unknown tenant", CITED[:40], "Ask", "INCORRECT 0.00"} <= told
    assert [(text, round(ratio, 2)) for text, ratio, needed in contrasts if ratio < needed] == []
    page.emulate("light")


def test_colours_follow_the_scheme_that_the_user_prefers(page: Playground) -> None:
    """The page is dark on light, or light on dark, as the system is set."""
    page.load()
    backgrounds = []
    for scheme in ("light", "dark"):
        page.emulate(scheme)
        backgrounds.append(page.script("return getComputedStyle(document.body).backgroundColor"))
    page.emulate("light")
    light, dark = ([int(number) for number in re.findall(r"\d+", colour)] for colour in backgrounds)
    assert min(light) > 200 > 60 > max(dark)


def test_narrow_screen_needs_no_scrolling_sideways(page: Playground) -> None:
    """On 320 pixels, with two answers and words without end, everything stands in one column within the screen."""
    page.ingest("narrow", [{"id": "w" * 300, "title": "x" * 300, "text": f"{CITED} {'y' * 900}"}])
    size = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.command("Emulation.setDeviceMetricsOverride", **size)
    try:
        page.ask(tenant="narrow", mode="crag", compared="standard")
        page.answered(panels=2)
        assert page.texts(".answer") == [TEXT, TEXT]
        assert page.script("return document.documentElement.scrollWidth") <= 320
        first, second = (panel.rect for panel in page.all(".panel"))
        assert second["y"] >= first["y"] + first["height"]
    finally:
        page.command("Emulation.clearDeviceMetricsOverride")


def test_name_of_the_model_is_seen_whole(page: Playground) -> None:
    """On a window of usual width, the choice of a model is as wide as the built-in model's name."""
    page.load()
    whole, wide = page.script(
        "const select = document.getElementById('model');"
        "select.replaceChildren(new Option('default (qwen2.5-coder-1.5b)'));"
        "const wide = select.offsetWidth;"
        "select.style.width = 'max-content';"
        "return [select.offsetWidth, wide]"
    )
    assert whole <= wide
