"""Launch checks: they hold model, input and output against each other before a job starts.

`batch_job` and `streaming_job` plan a whole job; the other files each plan a part of one.
"""
