//! The one read and write path.
