"""The paper's questions, one study each: what a study is, how it is run, and what it writes.

How the parts fit together:

- A `Study` (`study.py`) names its `units(options)`, the smallest pieces of work that can be resumed, mostly one prompt with one
  seed: a stable key and plain JSON content. `measure(unit, runner, options)` gives `Measured`: rows, which are flat dicts of
  str, int, float, bool and None, the same whenever and wherever they are measured, and a few pictures to keep. At the end
  `conclude(found, options)` makes all rows, as a pandas DataFrame, into a `Report` of tables, plots, pictures, paragraphs.
- The `ModelRunner` (`model_runner.py`) alone holds a model: `runner.picture(prompt, seed)` generates and records,
  `runner.denoised(image, caption, seed)` records a picture that exists already, one step at each of some noise levels. Both
  give a `Sample`.
- The runner (`runner.py`) measures what is not measured yet, appends one JSON line a unit to a shard of its own process
  (`shards.py`), and shares the units out under `accelerate launch` (`processes.py`): process i takes every n-th of them.
- `report.py` writes rows.csv, report.md, report.html, plots and run.json, each under a temporary name first, run.json last.
- `prompts.py` gives the prompts, `ground_truth.py` and `annotated_folder.py` the true masks, `scoring.py` how well a mask fits,
  `statistics.py` how sure a mean is (scipy), `cross_validation.py` what was chosen on which half; `plots.py` draws for print.
- `trees.py` and `parsing.py` give the words that depend on each other, `word_masks.py` how their masks overlap, `segment.py`
  what a picture shows; `attention_freezing.py` holds attention still; `rating_sheet.py` and `ratings.py` ask people;
  `significance.py` tests.
- A study registers itself by one line in `registry.py`; its options join those of all studies in `commands.py`. An option that
  does not change the rows of a unit is named in `Study.outside`: all others decide which kept rows are used again.

A study never prints, never draws random numbers but from a seed in its unit, and never looks at the clock.
"""
