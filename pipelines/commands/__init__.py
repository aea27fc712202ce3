"""The commands of `sluice`.

Each command is a module with HELP, DESCRIPTION, EPILOG, `add_arguments` and `run`; it stands in listed.py, and is
imported when it is used. A command whose work needs Beam or a client of Google's imports that in `run` alone: from
pipelines.batch and pipelines.streaming, or from its NAME_run.py. So `sluice --help` and usage errors answer at once;
tests/pipelines/test_startup.py holds it.
"""
