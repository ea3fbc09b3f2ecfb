//! Scalars and reflection that every API type is built on.
