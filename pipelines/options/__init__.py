"""What a job can be told: dataclasses, and the flags that are made from them."""
