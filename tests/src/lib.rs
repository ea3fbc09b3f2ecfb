//! Real binaries over the wire.
