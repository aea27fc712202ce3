"""BigQuery as the source and the sink of rows, in Arrow both ways."""
