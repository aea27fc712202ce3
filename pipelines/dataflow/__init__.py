"""Jobs on Dataflow: defaults, templates, the source that workers install; and the choice of the runner."""
