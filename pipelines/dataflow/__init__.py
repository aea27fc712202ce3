"""What a job gets on Dataflow: defaults, templates, the sdist, the runner."""
