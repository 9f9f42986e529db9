"""The database: areas, brains, data sets and samples as plain data. Knows numpy, never torch; what computes lives in
`areas`."""

__all__: list[str] = []
