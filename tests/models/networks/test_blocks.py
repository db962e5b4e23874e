import pytest
import torch

from medgen.models.families.spade import SpadeBlock
from medgen.models.networks import blocks
from medgen.models.networks.cube_networks import CubeDecoder
from medgen.models.networks.time_unet import TimeUNet
from medgen.models.networks.unet import UNet
from medgen.models.passes import in_slabs
from medgen.system.memory import room_for, working_memory
from medgen.system.precision import bf16_works


def test_space_to_depth_is_undone():
    x = torch.randn(2, 3, 4, 6, 8)
    y = blocks.space_to_depth(x)
    assert y.shape == (2, 24, 2, 3, 4)
    assert torch.equal(blocks.depth_to_space(y), x)
    # The 8 neighbours of one voxel lie beside each other in the channels.
    assert torch.equal(y[0, :8, 0, 0, 0], x[0, 0, :2, :2, :2].flatten())


@pytest.mark.parametrize("shape", [(13, 8, 17), (8, 8, 8), (9, 10, 11)])
def test_padding_is_undone(shape):
    x = torch.randn(1, 2, *shape)
    padded = blocks.pad_to_multiple(x, 8)
    assert padded.shape[2:] == blocks.padded_shape(shape, 8)
    assert all(size % 8 == 0 for size in padded.shape[2:])
    assert torch.equal(blocks.crop_to(padded, shape), x)


def test_channel_norm_looks_at_one_voxel_only():
    norm = blocks.ChannelNorm(16)
    x = torch.randn(1, 16, 4, 4, 4)
    y = norm(x)
    assert y.mean(1).abs().max() < 1e-5
    changed = x.clone()
    changed[..., 0] += 5 * torch.randn(1, 16, 4, 4)
    torch.testing.assert_close(norm(changed)[..., 1:], y[..., 1:])


def test_a_residual_block_starts_as_the_identity_with_noise_or_without():
    block = blocks.ResBlock(16, noise=True)
    x = torch.randn(1, 16, 4, 4, 4)
    assert torch.equal(block(x, torch.randn(1, 1, 4, 4, 4)), x)
    torch.nn.init.normal_(block.mix.weight)
    assert not torch.equal(block(x, torch.randn(1, 1, 4, 4, 4)), block(x))


def test_pointwise_is_a_convolution_of_size_one():
    layer = blocks.Pointwise(4, 6)
    x = torch.randn(2, 4, 3, 5, 2)
    expected = torch.nn.functional.conv3d(x, layer.weight[:, :, None, None, None], layer.bias)
    torch.testing.assert_close(layer(x), expected)


def test_a_smooth_start_has_no_checkerboard():
    layer = blocks.Pointwise(4, 16)
    blocks.smooth_start(layer)
    y = blocks.depth_to_space(layer(torch.randn(1, 4, 2, 2, 2)))
    assert torch.equal(y[..., ::2, ::2, ::2], y[..., 1::2, 1::2, 1::2])


@pytest.mark.skipif(not bf16_works("cpu"), reason="bfloat16 gives wrong numbers on this processor")
@pytest.mark.parametrize("size", [(1, 4, 4), (2, 2, 2), (2, 5, 4), (3, 2, 2)])
def test_gradients_of_convolutions_on_few_voxels_are_right_in_bfloat16(size):
    torch.manual_seed(0)
    layer = blocks.Conv3(16, 16)
    x = torch.randn(2, 16, *size)
    wanted = torch.autograd.grad(layer(x).square().sum(), layer.weight)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    found = torch.autograd.grad(y.float().square().sum(), layer.weight)[0]
    assert y.shape == x.shape
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


# Voxels along each axis: even, odd, two along the first, one along the last.
@pytest.mark.parametrize("shape", [(12, 16, 12), (7, 9, 8), (2, 20, 24), (20, 20, 1)])
def test_a_convolution_of_one_small_scan_is_the_convolution(shape):
    """Output and all gradients, also of gradients, against PyTorch's own in double precision."""
    layer = blocks.Conv3(32, 48)
    x = torch.randn(1, 32, *shape, requires_grad=True)
    assert blocks.small_and_alone(x)
    wanted = [tensor.detach().double().requires_grad_() for tensor in (x, layer.weight, layer.bias)]
    exact = torch.nn.functional.conv3d(*wanted, padding=1)
    weight = torch.randn_like(exact)
    made = layer(x)
    assert torch.allclose(made.double(), exact, atol=1e-4)
    given = (x, layer.weight, layer.bias)
    own = torch.autograd.grad((made * weight).square().sum(), given, create_graph=True)
    theirs = torch.autograd.grad((exact * weight).square().sum(), wanted, create_graph=True)
    for mine, other in zip(own, theirs, strict=True):
        assert (mine - other).abs().max() < 1e-5 * other.abs().max()
    again = torch.autograd.grad(sum(part.square().mean() for part in own), given)
    reference = torch.autograd.grad(sum(part.square().mean() for part in theirs), wanted)
    for mine, other in zip(again, reference, strict=True):
        assert (mine - other).abs().max() < 1e-4 * other.abs().max()


def test_only_one_small_scan_in_full_precision_is_taken_apart():
    x = torch.zeros(1, 32, 12, 16, 12)
    assert blocks.small_and_alone(x)
    assert not blocks.small_and_alone(x.expand(2, -1, -1, -1, -1))
    assert not blocks.small_and_alone(x.double())
    assert not blocks.small_and_alone(torch.zeros(1, 32, 26, 26, 4))
    assert not blocks.small_and_alone(torch.zeros(1, 32, 6, 6, 6))
    assert not blocks.small_and_alone(x.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not blocks.small_and_alone(x)


def test_counted_operations_are_those_of_the_plain_convolution():
    from medgen.training.counting import Operations

    layer, x = blocks.Conv3(32, 48), torch.zeros(1, 32, 12, 16, 12)
    with Operations() as counted:
        layer(x)
    assert sum(counted.parts) == 2 * 27 * 32 * 48 * 12 * 16 * 12


def _random(network):
    """Weights of no particular kind: blocks start as the identity, and would agree whatever they did."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return network.eval()


def _of_level(planes):
    return torch.randn(2, 16, planes, 6, 5, generator=torch.Generator().manual_seed(planes))


LARGE = {
    "block": (blocks.ResBlock(16), lambda: (_of_level(29),)),
    "block with noise": (blocks.ResBlock(16, noise=True), lambda: (_of_level(29), _of_level(29)[:, :1])),
    "spade": (SpadeBlock(16, 16, 16), lambda: (_of_level(29), _of_level(29).flip(3), None)),
    "unet": (UNet(1, (16, 16, 16), 2, 2), lambda: (torch.rand(1, 1, 53, 10, 12),)),
    "time unet": (TimeUNet(1, (16, 16, 16), 2, 1), lambda: (torch.rand(1, 1, 37, 10, 12), torch.tensor([0.3]))),
    "cubes": (CubeDecoder(4, (16, 16), 1, 2, 1), lambda: (torch.rand(1, 4, 9, 3, 3),)),
}


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("room", [1, 60_000])
def test_slabs_make_one_scan_without_seams(kind, room):
    network, given = LARGE[kind]
    inputs = given()
    _random(network)
    with torch.no_grad():
        whole = network(*inputs)
        with working_memory(room):
            slabs = network(*inputs)
    assert whole.std() > 0.01
    torch.testing.assert_close(slabs, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))
    assert slabs.is_contiguous(memory_format=torch.channels_last_3d) == whole.is_contiguous(
        memory_format=torch.channels_last_3d
    )


def test_slabs_are_as_thick_as_memory_allows():
    seen = []

    def inside(x):
        seen.append(x.shape[2])
        return 2 * x

    x = torch.rand(1, 16, 40, 8, 8)
    plane = 5 * x[:, :, 0].numel() * 4
    with torch.no_grad():
        for room in (40 * plane, 20 * plane, 40 * plane - 1, 1):
            with working_memory(room):
                assert torch.equal(in_slabs(inside, (x,), 1), 2 * x)
            seen.append(0)
    # Whole; 18 planes and their neighbours; 37; the fewest that are ever taken.
    assert seen == [40, 0, 19, 20, 5, 0, 38, 4, 0, 5, *[6] * 8, 5, 0]
    seen.clear()
    with working_memory(1):
        in_slabs(inside, (x.requires_grad_(),), 1)
    assert seen == [40], "with gradients, everything is kept anyway"


def test_the_room_of_a_layer_is_the_same_whatever_else_runs():
    cpu = torch.device("cpu")
    assert room_for(1000, cpu) == 1000
    most = room_for(1 << 40, cpu)
    assert most < 1 << 30
    with working_memory(10):
        assert room_for(1000, cpu) == 10
        assert room_for(5, cpu) == 5
    assert room_for(1 << 40, cpu) == most
