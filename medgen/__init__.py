"""medgen: synthesis of labelled 3D medical images and anomaly detection for small cohorts. Not for clinical use."""

__version__ = "0.1.0"
