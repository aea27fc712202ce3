"""The options of jobs: dataclasses, and the flags that are made from them."""
