"""Images on grids: reading, resampling, smoothing, and rigid registration. Nothing here knows a brain."""
