//! An immutable, indexed snapshot of objects: what every decider reads.
