"""What families share that are trained against a discriminator: autoencoder, mixed codes, distance of samples."""
