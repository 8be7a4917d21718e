"""How good pictures of people are: numbers with intervals, tables and a report (docs/evaluation.md).

``cases`` says what was asked for, ``recognisers`` who is seen, ``metrics`` turns both into numbers, ``run`` does it for
many pictures, ``tables`` and ``report`` show it.
"""
