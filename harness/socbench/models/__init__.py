"""Models: cards, variants, conversion and quantisation, data sets, reference outputs."""
