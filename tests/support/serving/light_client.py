"""A check that a client of a served model is cheap to import."""

import subprocess
import sys
from collections.abc import Sequence

_SCRIPT = """
import sys, numpy
from sluice import open_model
model = open_model(sys.argv[1])
outputs = model.call({'x': numpy.arange(3)})
assert outputs.arrays['y'].tolist() == [0, 2, 4], outputs
model.close()
loaded = set(sys.argv[2:]) & set(sys.modules)
assert not loaded, loaded
"""


def check_light_client(uri: str, without: Sequence[str]) -> None:
    """Calls a model that doubles x in a new process, which must not import these modules."""
    ran = subprocess.run([sys.executable, "-c", _SCRIPT, uri, *without], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
