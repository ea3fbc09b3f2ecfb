//! Generated API types and their codecs.
