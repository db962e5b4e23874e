"""Works that methods sections cite, beyond those that scores and models name in their own docstrings."""

from __future__ import annotations

MEDGEN = (
    "The medgen developers. medgen: synthesis of labelled 3D medical images and anomaly detection for small cohorts."
)
MONAI = 'Cardoso et al., "MONAI: an open-source framework for deep learning in healthcare", arXiv:2211.02701, 2022.'
ADAMW = 'Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.'
N4 = 'Tustison et al., "N4ITK: improved N3 bias correction", IEEE Transactions on Medical Imaging 29, 2010.'
NYUL = 'Nyúl and Udupa, "On standardizing the MR image intensity scale", Magnetic Resonance in Medicine 42, 1999.'
MNI = 'Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 54, 2011.'
MUTUAL_INFORMATION = (
    'Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE Transactions on '
    "Medical Imaging 22, 2003."
)
CROSS_CONFORMAL = 'Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015.'
JACKKNIFE_PLUS = 'Barber et al., "Predictive inference with the jackknife+", Annals of Statistics 49, 2021.'
PARETO_TAIL = 'Coles, "An introduction to statistical modeling of extreme values", Springer, 2001.'
BOOTSTRAP = 'Efron and Tibshirani, "An introduction to the bootstrap", Chapman & Hall, 1993.'
EXACT_BINOMIAL = (
    'Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", '
    "Biometrika 26, 1934."
)
HOLM = 'Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.'
UNET = 'Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015.'
SURFACE_DICE = (
    'Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", Journal of '
    "Medical Internet Research 23, 2021."
)
DEEP_ENSEMBLES = (
    'Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles", '
    "NeurIPS 2017."
)
NOISY_STUDENT = 'Xie et al., "Self-training with noisy student improves ImageNet classification", CVPR 2020.'
KID = 'Bińkowski et al., "Demystifying MMD GANs", ICLR 2018.'
COVERAGE = 'Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020.'
MS_SSIM = 'Wang et al., "Multiscale structural similarity for image quality assessment", Asilomar Conference 2003.'
DATA_COPYING = 'Meehan et al., "A non-parametric test to detect data-copying in generative models", AISTATS 2020.'
EXTRACTION = 'Carlini et al., "Extracting training data from diffusion models", USENIX Security 2023.'
MEMBERSHIP = 'Chen et al., "GAN-Leaks: a taxonomy of membership inference attacks against generative models", CCS 2020.'
