"""Labels as language: classification by a language-model head. What a label is called is put behind the text,
and the classifier's logits are how likely the network finds each of these continuations.

``pattern.py`` says in which words, ``prompt.py`` turns them into token ids around a text, ``trie.py`` holds
the labels' token ids, ``tree.py`` lets the blocks read all of them in one row, ``head.py`` is the classifier.
"""
