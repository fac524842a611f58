"""The words of a text as terms that can be compared, and how much each tells."""

import json
import math
import re
import threading
import unicodedata
from collections.abc import Set
from functools import lru_cache
from pathlib import Path

from components.weights.catalogue import MissingWeightsError

# Base form first.
IRREGULAR_FORMS = (
    "begin began begun|become became|bring brought|build built|buy bought|catch caught|"
    "choose chose chosen|come came|do did done|draw drew drawn|drive drove driven|fall fell fallen|"
    "fight fought|find found|fly flew flown|get got gotten|give gave given|go went gone|"
    "grow grew grown|hold held|keep kept|know knew known|lead led|leave left|lie lay lain|"
    "lose lost|make made|mean meant|meet met|pay paid|rise rose risen|run ran|say said|"
    "see saw seen|sell sold|send sent|sing sang sung|speak spoke spoken|spend spent|stand stood|"
    "steal stole stolen|take took taken|teach taught|tell told|think thought|throw threw thrown|"
    "win won|write wrote written|man men|woman women|child children"
)
IRREGULAR = {form: line.split()[0] for line in IRREGULAR_FORMS.split("|") for form in line.split()[1:]}
# Hindi, Thai and their neighbours write vowels as marks that \w leaves out.
WORD = re.compile(r"[\w\u0300-\u036f\u064b-\u0652\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")
# Scripts without blanks between words: pairs of characters stand for words.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
ACCENTS = re.compile(r"[\u0300-\u036f\u064b-\u0652]")
DIGITS_WITH_COMMAS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
FIRST_WORD_ID = 1996  # BERT's vocabulary: special tokens and characters first, then words by frequency
VOCABULARY_SIZE = 30522


def words(text: str) -> list[str]:
    """
    Finds the words of a text in one common form: case, accents and Unicode variants folded.

    :param text: Any text.
    :returns: The words in order; runs of Chinese, Japanese or Thai give pairs of characters.
    """
    folded = ACCENTS.sub("", unicodedata.normalize("NFKD", text)).casefold()
    folded = unicodedata.normalize("NFKC", DIGITS_WITH_COMMAS.sub("", folded))
    return [part for word in WORD.findall(folded) for part in _split_unspaced(word)]


def _split_unspaced(word: str) -> list[str]:
    if not UNSPACED.search(word):
        return [word]
    parts = [part for part in UNSPACED.sub(" ", word).split() if part]
    for run in UNSPACED.findall(word):
        parts += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
    return parts


# English, German, Spanish, French, Russian, Arabic, Hindi: words that tell nothing of the subject. What is a
# telling word in English ("die", "war") is left out.
STOP_WORDS = frozenset(
    words(
        """
        a about after all also am an and any are as at be been being both but by can could did do does doing
        during each etc for from had has have having he her here hers him his how i if in into is it its
        itself just let many may me might more most much must my no nor not of off on one only onto or other
        our out over own per please s shall she should so some such t tell than that the their them then
        there these they this those through to under until up upon us was we were what when where whether
        which while who whom whose why will with within would you your name named called der das den dem des
        ein eine einer eines einem einen und oder von vom zu zum zur im mit für auf ist sind waren wird
        wurde wurden wie viele viel wann wer wo warum welche welcher welches welchen nach bei el la un una
        unos unas y o de del al en con por para es fue fueron era eran se que qué cuál cuáles cuándo quién
        quiénes dónde cómo cuántos cuántas cuánto su sus lo le les une du et ou dans par avec est sont était
        qui que quoi quel quelle quels quelles quand où comment combien и в во на с со к по из за от до для
        о об у не что кто где когда как какой какая какие какое какого сколько чем это был была были было
        почему في من على إلى عن ما ماذا متى من أين كيف كم هو هي هل التي الذي كان كانت هذا هذه و का की के को
        में से पर है हैं था थे थी और क्या कौन कब कहाँ कैसे कितने कितनी किस किसने ने यह वह"""
    )
)


def stem(word: str) -> str:
    """
    Folds the common English endings (plural, -ed, -ing, final e) and irregular forms.

    :param word: A word from `words`.
    :returns: Its stem; words of other scripts and short ones are left as they are.
    """
    word = IRREGULAR.get(word, word)
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending, shortest in (("ing", 6), ("ed", 5)):
        if word.endswith(ending) and len(word) >= shortest:
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    word = word.removesuffix("e")
    return word[:-1] + "i" if word.endswith("y") else word


def stems(text: str) -> frozenset[str]:
    """
    Finds the distinct stems of a text.

    :param text: Any text.
    :returns: Their set.
    """
    return frozenset(stem(word) for word in words(text))


# Chunks and their sentences come up again, in ranking and in grading, and with the next question.
remembered_stems = lru_cache(maxsize=20_000)(stems)


class TermWeights:
    """
    How much a word tells, without a corpus: frequent words little, rare ones much, stop words nothing.

    BERT's vocabulary lists words roughly by frequency, and a word's frequency falls with its rank (Zipf's
    law), so the logarithm of the rank stands for the inverse document frequency. A word that is not in the
    vocabulary is rarer than all that are.

    ### Usage example
    ```python
    weights = TermWeights("minilm-tokenizer.json")
    weights.of("Who founded the Onggirat tribe?")  # {"found": 0.39, "onggirat": 1.0, "trib": 0.64}
    ```
    """

    def __init__(self, tokenizer_path: str | Path | None = None) -> None:
        """
        Stores the parameter; the first use reads the file.

        :param tokenizer_path: A BERT `tokenizer.json`. Without one, all words but stop words weigh the same.
        """
        self.tokenizer_path = Path(tokenizer_path) if tokenizer_path is not None else None
        self._loading = threading.Lock()
        self._ranks: dict[str, int] | None = None

    def warm_up(self) -> None:
        """Reads the vocabulary; does nothing the second time."""
        with self._loading:
            if self._ranks is None:
                self._ranks = self._read_ranks()

    def of(self, text: str) -> dict[str, float]:
        """
        Weighs the terms of a text.

        :param text: Usually a question.
        :returns: Weight, above 0 and up to 1, of each stem that is no stop word. When a text has stop words
            alone, these all weigh 1.
        """
        found = words(text)
        telling = [word for word in found if word not in STOP_WORDS]
        if not telling:
            return {stem(word): 1.0 for word in found}
        weights: dict[str, float] = {}
        for word in telling:
            weights[stem(word)] = max(self.weight(word), weights.get(stem(word), 0.0))
        return weights

    def weight(self, word: str) -> float:
        """
        Weighs one word.

        :param word: A word from `words`.
        :returns: Its weight: 0 for a stop word, 1 for one that the vocabulary lacks.
        """
        self.warm_up()
        assert self._ranks is not None
        if word in STOP_WORDS:
            return 0.0
        rank = self._ranks.get(word)
        if rank is None:
            return 1.0
        # Squared, so that a rare name outweighs the common words around it ("symptoms of ...").
        return (math.log(2 + max(rank - FIRST_WORD_ID, 0)) / math.log(VOCABULARY_SIZE)) ** 2

    def _read_ranks(self) -> dict[str, int]:
        if self.tokenizer_path is None:
            return {}
        if not self.tokenizer_path.is_file():
            raise MissingWeightsError(
                f"there is no tokenizer at {self.tokenizer_path}; get it with: thresher models fetch"
            )
        return json.loads(self.tokenizer_path.read_text(encoding="utf-8"))["model"]["vocab"]


def coverage(weights: dict[str, float], found: Set[str]) -> float:
    """
    Says which share of a question's terms, by weight, a text has.

    :param weights: The question's terms, from `TermWeights.of`.
    :param found: The text's stems, from `stems`.
    :returns: 0 to 1; 0 for a question without any word.
    """
    if found.isdisjoint(weights):
        return 0.0
    return sum([weight for term, weight in weights.items() if term in found]) / sum(weights.values())
