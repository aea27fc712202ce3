"""What all transforms share: the coder of RecordBatches, failures, metrics, the commit, files by Beam."""
