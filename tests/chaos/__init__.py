"""Kill Segue's processes repeatedly, with a failing provider and database, and check the result.

    make chaos SECONDS=120 SEED=1 DB=postgresql

`run.py` starts real processes and kills them; `crew.py` has the processes; `engines.py` has the
databases and their failures; `shop.py` sends the events of customers; `provider.py` records the
requests that it gets; `verdict.py` checks the result. docs/operate/faults.md explains the output.
"""
