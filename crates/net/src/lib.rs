//! Kernel networking: bridges, veths, nftables, CNI.
