"""What is done to voxels and grids, whatever they show: fields, registration, augmentation, resampling of labels."""
