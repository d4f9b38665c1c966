"""The tests; what is set here is set before torch is loaded."""

import os

# As `vtm` does: the threads of one test process would else spin on the cores that the other one needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
