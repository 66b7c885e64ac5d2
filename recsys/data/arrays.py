"""Types of the numpy arrays that the library passes around."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""Embeddings, scores and features."""

Doubles = NDArray[np.float64]
"""Geometry and statistics that need more digits."""

Ints = NDArray[np.int64]
"""Rows, codes, and times in microseconds."""

Bools = NDArray[np.bool_]
"""Masks of users and items."""
