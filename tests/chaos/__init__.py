"""Segue killed again and again, with a provider and a database in trouble: what is left in order?

    make chaos SECONDS=120 SEED=1 DB=postgresql

`run.py` starts real processes and kills them; `crew.py` are the processes; `engines.py` has the
databases and their troubles; `shop.py` tells what customers do; `provider.py` remembers what it was
handed; `verdict.py` recounts everything afterwards. docs/faults.md says how to read the result.
"""
