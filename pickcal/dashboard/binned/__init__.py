"""All picks, binned once: what any thresholds leave of them, as quickly for a hundred million as for a million."""
