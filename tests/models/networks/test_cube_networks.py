"""The linear start of encoder and decoder is scikit-learn's PCA of the cubes."""

from __future__ import annotations

import torch
from sklearn.decomposition import PCA

from medgen.models.networks.cube_networks import CubeDecoder, CubeEncoder, start_linear


def test_the_start_is_pca_of_cubes() -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 2, 8, 12, 8) * torch.linspace(0.1, 1, 12)[:, None]
    encoder, decoder = CubeEncoder(2, (16, 16), 1, 5), CubeDecoder(5, (16, 16), 1, 4, 2)
    start_linear(encoder, decoder, images)
    cubes = images.view(6, 2, 2, 4, 3, 4, 2, 4).permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, 128).double()
    # About zero, as the images are centred voxel by voxel.
    theirs = PCA(5).fit(torch.cat([cubes, -cubes]).numpy())
    with torch.no_grad():
        z = encoder.project(images)
        rows = z.movedim(1, -1).reshape(-1, 5)
        torch.testing.assert_close(rows.square().mean(0), torch.ones(5), atol=1e-3, rtol=1e-3)
        found = decoder.expand(z)
    back = torch.from_numpy(theirs.inverse_transform(theirs.transform(cubes.numpy()))).float()
    expected = back.view(6, 2, 3, 2, 2, 4, 4, 4).permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(images.shape)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_components_without_variance_begin_at_nothing() -> None:
    encoder, decoder = CubeEncoder(1, (16,), 1, 6), CubeDecoder(6, (16,), 1, 2, 1)
    flat = torch.randn(4, 1, 4, 4, 4)[:, :, :1, :1, :1].expand(4, 1, 4, 4, 4)
    start_linear(encoder, decoder, flat)
    assert not encoder.project.weight[1:].any()
    torch.testing.assert_close(decoder.expand(encoder.project(flat)), flat.contiguous(), atol=1e-5, rtol=1e-4)


def test_shapes_are_each_others() -> None:
    encoder, decoder = CubeEncoder(2, (16, 32), 2, 3), CubeDecoder(3, (16, 32), 2, 4, 2)
    z = encoder(torch.rand(1, 2, 8, 12, 4))
    assert z.shape == (1, 3, 2, 3, 1)
    assert decoder(z).shape == (1, 4, 8, 12, 4)
