//! CRI client to containerd and other runtimes.
