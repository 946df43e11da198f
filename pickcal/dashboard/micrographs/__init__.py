"""Single micrographs: their picks judged exactly, pictures, cutouts, exact counts in the background."""
