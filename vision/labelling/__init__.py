"""Few labels: prototypes, pseudo-labels, what to label next, thresholds."""
