"""What a new process pays: the import, and the first call with compiled kernels in the cache."""

import fastrnn


class Import:
    version = "1"

    def timeraw_import_fastrnn(self):
        return "import fastrnn"

    def timeraw_import_numpy(self):
        return "import numpy"


class FirstCall:
    version = "1"

    def setup(self):
        fastrnn.forward(fastrnn.RNN(1.0, 0.5), [0.0])

    def timeraw_first_forward(self):
        return "import fastrnn; fastrnn.forward(fastrnn.RNN(1.0, 0.5), [0.0])"

    def timeraw_first_forward_cold(self):
        """With nothing in the cache: all is compiled."""
        return """
import os, tempfile
with tempfile.TemporaryDirectory() as folder:
    os.environ["FASTRNN_CACHE_DIR"] = folder
    import fastrnn
    fastrnn.forward(fastrnn.RNN(1.0, 0.5), [0.0])
"""
