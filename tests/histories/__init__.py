"""Histories of many nights, made by a seed: whatever the EHR did, what the store says of it is true.

`./run histories --seeds 1-1000` plays them. A small EHR in memory (`rows`, `content`, `ehr`, `answers`) lives through a history
(`steps`) that a seed stands for (`director`, `twists`); `player` makes the runs of it with the real `connectors.fhir.sync` on a
real Postgres (`stage`). `oracle` judges after each run (`watch`, `past`, `green`), and `at_end` after the last one, by clauses
(always, a to e) that the oracle's docstring lists. What is known of the store's tables is `store_view`'s alone; `mutants` shows
what notices a product that is broken on purpose. A history that fails is made small (`shrink`) and printed (`printed`):

    FAIL  seed 18: always: a row that could be read was made dead (crawl): Condition/c6
          Site(home=Ask(types=('Patient', 'Condition')), page=2)
          Add(type='Patient', id='p3', patient='p3', age_d=300)
          Add(type='Condition', id='c6', patient='p3', age_d=200)
          Run(ask=Ask(types=('Patient', 'Condition')))
          Hide(type='Condition', id='c6')
          Run(ask=Ask(types=('Patient', 'Condition')), since='none', faults=(Flaky(every=3),))
          runs: complete; complete

How to read it, line by line:

- The clause that does not hold, what it is about, and the rows. "crawl", "system", "group" … say how that run came to its rows.
- `Site`: the server's manners and the connection's configuration, but for what is as by default. `home` is what the sound runs at
  the end ask; an `Ask` without `who` is everyone, without `mode` a crawl, without `types` all.
- The steps in order, each as `steps` describes it; what stands as by default is left out. Minutes lie between two steps, days
  only where a `Wait` says so. `faults` last for that one run, `during` happens before its n-th request, `kill` ends its process;
  all other steps last until another takes them back.
- `runs`: how each run ended, with the types of its holes. After the last step come the sound runs: the EHR is made well, `home`
  is asked in full twice, then until dead rows are gone, and last on a night on which nothing happens. Where a step's own run
  failed there are none.

A printed history is Python: `from tests.histories.steps import *`, then `History(Site(…), (…))` and `Stage.play` play it again.
"""
