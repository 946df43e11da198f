"""The Python API of notebooks: a project on the workbench, whose stages take plain keyword arguments.

`open` and `import_micrographs` give a `Workbench`. Nothing is computed here: methods make settings of their arguments,
call the stages that the command line calls too, and hand out xarray objects with units.
"""

from pickcal.api.opening import import_micrographs, open, simulate_micrographs
from pickcal.api.workbench import Workbench

__all__ = ["Workbench", "import_micrographs", "open", "simulate_micrographs"]
