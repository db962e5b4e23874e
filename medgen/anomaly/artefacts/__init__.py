"""Scans that are faulty as a whole: measures that tell artefacts from anatomy, and the limits of healthy scans."""
