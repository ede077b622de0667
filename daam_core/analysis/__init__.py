"""The paper's questions, one study each: what a study is, how it is run, and what it writes.

How the parts fit together:

- A `Study` (`study.py`) names its `units`, the smallest pieces of work that can be resumed, mostly one prompt with one seed:
  a stable key and plain JSON content. It can `measure` one unit with a `Studio` and gets rows out of it: flat dicts of str,
  int, float, bool and None, the same whenever and wherever they are measured. At the end it `conclude`s: all rows as a
  pandas DataFrame become a `Report` of tables, plots, pictures and paragraphs.
- The `Studio` (`studio.py`) is the only one that holds a model: `studio.picture(prompt, seed)` paints and records,
  `studio.denoised(image, caption, seed)` records a picture that exists already, one step at each of some noise levels. Both
  give a `Shot`.
- The runner (`runner.py`) measures what is not measured yet, appends one JSON line a unit to a shard of its own process
  (`shards.py`), and shares the units out under `accelerate launch` (`processes.py`): process i takes every n-th of them.
- `report.py` writes rows.csv, report.md, report.html, plots and run.json, each under a temporary name first, run.json last.
- `statistics.py` calls scipy and statsmodels; `plots.py` draws for print; `truth.py` knows masks to compare with.
- A study registers itself by one line in `registry.py`.

A study never prints, never draws random numbers but from a seed in its unit, and never looks at the clock.
"""
