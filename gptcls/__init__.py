"""gptcls: how a pretrained GPT becomes a text classifier, to learn from and to use."""

from gptcls.errors import InputError
from gptcls.predict import TextClassifier, classify_review, load_classifier

__all__ = ["InputError", "TextClassifier", "classify_review", "load_classifier"]
__version__ = "0.1.0"
