"""Methods for few labels: prototypes, pseudo-labels, active learning and thresholds."""
