//! The workloads, one file each. Every one checks the counts of what it did.

pub mod boot;
pub mod lists;
pub mod namespaces;
pub mod scheduling;
pub mod store;
pub mod traffic;
pub mod verbs;
pub mod watches;

pub use boot::BootArgs;
pub use lists::ListsArgs;
pub use namespaces::NamespaceArgs;
pub use scheduling::SchedulingArgs;
pub use store::StoreArgs;
pub use traffic::TrafficArgs;
pub use verbs::VerbsArgs;
pub use watches::WatchArgs;
