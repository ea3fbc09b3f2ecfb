//! Decisions, hints and the snapshot, over clusters written as text.

mod fixture;
mod golden;
mod hints;
mod incremental;
mod volumes;
