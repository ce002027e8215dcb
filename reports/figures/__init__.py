"""The figures of a report: each module turns a run into a plot, its data, and the sentence that says how to read it."""
