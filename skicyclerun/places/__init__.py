"""Where a photo was taken, in words: offline from GeoNames, on wish from a geocoder, with a cache of its answers."""
