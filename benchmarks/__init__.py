"""How fast gptcls is, side by side with the book's own package and with transformers.

``python -m benchmarks.finetune``, ``python -m benchmarks.inference`` and ``python -m benchmarks.scaling``
each print a table and, with ``--json FILE``, write it. All contestants get the same random weights, the same
rows and the same threads, and take turns in one run, so that a ratio survives a noisy machine.
"""
