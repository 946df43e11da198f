"""Foreign file formats: micrographs and maps (MRC, TIFF), STAR files, RELION's conventions, plain tables.

Every reader converts to pickcal's conventions (Å, degrees, arrays `(y, x)`, origin at the centre of the first stored
pixel) and every error names the file, what was expected and what was found.
"""
