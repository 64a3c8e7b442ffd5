"""Segue killed again and again, with a provider and a database in trouble: what is left in order?

    make chaos SECONDS=120 SEED=1 DB=postgresql

`run.py` starts real processes and kills them; `shop.py` tells them what customers do;
`provider.py` remembers what it was handed; `verdict.py` recounts everything afterwards.
"""
