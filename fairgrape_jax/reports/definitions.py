"""What the words of a report mean: once, in its last section, linked from where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

GENERAL = {
    "change": "Accuracy minus that of the dense model on the same samples, in points.",
    "leader": "Of the methods that do better than always saying the most frequent class, the one "
    "whose worst group is most accurate. Methods are compared with it.",
    "worst group": "The accuracy of the group with the lowest accuracy; of several models, the "
    "mean of each one's.",
    "extra loss": "How much more the group that loses most has lost than the group that loses "
    "least, in points.",
    "excess gap": "How much more the group that loses most loses than all samples do. Never below "
    "0, and not raised by a group that gains (Balancing Act).",
    "rho(A)": "Standard deviation over groups of accuracy, divisor G - 1.",
    "rho(Delta)": "Standard deviation over groups of the change of accuracy, divisor G - 1: the "
    "measure of FairGRAPE's paper. A group that gains raises it too.",
    "lowest / highest": "The accuracy of the worst group over that of the best, in percent.",
    "FPR": "False positive rate, FNR: false negative rate. Of the positive class if there are two "
    "classes, else the mean over classes.",
    "demographic parity difference": "The largest difference between groups in how often a class "
    "is predicted.",
    "equalized odds difference": "The largest difference between groups in a class's FPR or FNR.",
    "CEV": "Spread of the relative changes of FPR and FNR over classes or groups, of the models' "
    "mean rates. A class or group whose dense FPR or FNR is zero takes no part.",
    "SDE": "How unlike the relative changes of FPR and FNR are, over classes or groups.",
    "PIE": "Pruning-identified exemplar: a sample of which every compressed model says something "
    "else than its dense model does.",
    "share of importance": "A group's part of the summed importance of a layer's weights "
    "(FairGRAPE, Fig. 5).",
    "interval": "The numbers in brackets: 95 %, bootstrap over samples (within groups, the same "
    "draw for compressed and dense) and, where there are several models, over them. Whether two "
    "numbers differ is said by the interval of their difference, never by two intervals.",
    "corrected": "Where two of several groups or methods were picked for being the most extreme, "
    "the interval of their difference is one that holds for all pairs together.",
    "spread": "What measures a spread cannot be negative, and resampling adds to it: its "
    "interval does not reach zero and can lie above the value. Read it as the size of the noise.",
}
CONVENTIONS = {
    "simon-says": "changes in percent, CEV halved, SDE over the square root of 2 (Simon Says)",
    "measure-twice": "changes as fractions, CEV and SDE plain (Measure Twice, Cut Once)",
}
WITHOUT_DENSE = ("rho(A)", "FPR", "worst group", "interval", "corrected", "spread", "leader")
SAME = {"FNR": "FPR", "PIEs": "PIE"}  # words that another entry explains


def terms(names: Iterable[str] = (), convention: str = "simon-says") -> list[tuple[str, str]]:
    """The words that a report uses, each with its meaning.

    Args:
        names: of them; all by default.
        convention: of CEV and SDE.

    Returns:
        Word and meaning, in order.
    """
    chosen = list(names) or list(GENERAL)
    ends = {"CEV": f" Here: {CONVENTIONS[convention]}."}
    return [(word, text + ends.get(word, "")) for word, text in GENERAL.items() if word in chosen]


def anchor(word: str) -> str:
    """The name of the place where a word is explained.

    Args:
        word: one that is.

    Example:
        >>> anchor("rho(Delta)")
        'rho-delta'
    """
    return re.sub("[^a-z0-9]+", "-", word.lower()).strip("-")


def pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Finds the words of a list in a text, the longest first, and what they are also called.

    Args:
        words: that are explained.

    Example:
        >>> pattern(["rho(A)", "PIE"]).findall("the PIEs, rho(A) and PIEces")
        ['PIEs', 'rho(A)']
    """
    also = [word for word, other in SAME.items() if other in words]
    each = sorted([*words, *also], key=len, reverse=True)
    return re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in each))


def explained_at(word: str) -> str:
    """The anchor of a word, or of the entry that explains it.

    Args:
        word: as it stands in a text.

    Example:
        >>> explained_at("FNR"), explained_at("CEV")
        ('fpr', 'cev')
    """
    return anchor(SAME.get(word, word))
