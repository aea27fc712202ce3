"""Limits of Vertex AI's online endpoints, where the service publishes them.

Source: https://cloud.google.com/vertex-ai/docs/predictions/choose-endpoint-type. A shared endpoint really refuses more
than 1572864 bytes; the documentation says 1.5 MB, and so does this server, which may be stricter but not laxer.
"""

SHARED_BYTES = 1_500_000
# Dedicated and private endpoints alike.
DEDICATED_BYTES = 10_000_000

# google/cloud/aiplatform/v1/batch_prediction_job.proto: labels, partial_failures.
MAX_LABEL_CHARACTERS = 64
MAX_PARTIAL_FAILURES = 20
MAX_DISPLAY_NAME = 128
# google/cloud/aiplatform/v1/manual_batch_tuning_parameters.proto
BATCH_SIZE = 64
