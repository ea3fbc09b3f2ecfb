//! The service proxy's rules in nftables: one table per family, all services as map elements, each change one
//! transaction.
//!
//! **Layout.** A packet's destination is looked up once in a verdict map (`service-ips`, `service-nodeports`). The
//! verdict names a chain that is shared by all services with the same number of endpoints, `cluster-3` say, whose one
//! rule draws a number below three and looks destination and number up in the map `endpoints`. So ten thousand
//! services are elements of two maps, and a changed service is a few elements deleted and added. Only services with
//! session affinity have chains of their own.
//!
//! **Living with others.** The tables are ours alone; other tables are neither read nor written. Address translation
//! sits at the standard priorities (dstnat -100, srcnat 100), filters at 0 and source ranges at -110, before
//! translation. A host firewall's own drop still holds: an accept of ours does not overrule another table.
//!
//! **Mark.** Bit 14 (0x4000) of the packet mark asks postrouting for masquerading. It is the bit that upstream's proxy
//! uses for the same purpose, so firewalls and routing daemons that know to leave it alone still do.
//!
//! **Transport.** Transactions are netlink batches written here, not scripts for the `nft` program: a change costs no
//! process, does not read the table back, and does not depend on which maps a distribution's nft can express. The
//! result is readable by `nft list table ip timonel`.

pub(crate) mod batch;
mod chains;
mod elements;
pub(crate) mod expression;
mod plane;

pub use batch::Error;
pub(crate) use chains::{hairpin, of_family};
pub(crate) use elements::{port_bytes, target_bytes};
pub use plane::{Change, Plane, Settings, UdpFrontend};
