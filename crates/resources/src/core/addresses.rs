//! Addresses and networks as fields hold them.

use meta::field::{Errors, Path};
use std::net::{IpAddr, Ipv6Addr};

const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_A_NETWORK: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";

fn is_mapped(address: &Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// IPv4 whose parts have leading zeros: read by some as decimal, by others as octal.
fn has_leading_zeros(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 4
        && parts
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u8>().is_ok())
}

/// An address; those that stood there before are let be.
pub(crate) fn validate(text: &str, before: &[String], path: &Path, errors: &mut Errors) {
    if before.iter().any(|known| known == text) {
        return;
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if is_mapped(&address) => errors.invalid(path, text, MAPPED),
        Ok(_) => {}
        Err(_) if has_leading_zeros(text) => errors.invalid(path, text, "must not have leading 0s"),
        Err(_) => errors.invalid(path, text, NOT_AN_ADDRESS),
    }
}

/// A network in CIDR form.
pub(crate) fn validate_network(text: &str, before: &[String], path: &Path, errors: &mut Errors) {
    if before.iter().any(|known| known == text) {
        return;
    }
    let Some((address, bits)) = text.split_once('/') else {
        return errors.invalid(path, text, NOT_A_NETWORK);
    };
    let Ok(network) = text.parse::<ipnet::IpNet>() else {
        let bits_fit = bits.parse::<u8>().is_ok_and(|bits| bits <= 32);
        let zeros = bits_fit && has_leading_zeros(address);
        return errors.invalid(
            path,
            text,
            if zeros { "must not have leading 0s in IP" } else { NOT_A_NETWORK },
        );
    };
    if matches!(network.addr(), IpAddr::V6(address) if is_mapped(&address)) {
        errors.invalid(path, text, "must not have an IPv4-mapped IPv6 address");
    }
    if network.addr() != network.network() {
        errors.invalid(path, text, "must not have bits set beyond the prefix length");
    }
}

/// An address that something can be reached at.
pub(crate) fn validate_endpoint(text: &str, path: &Path, errors: &mut Errors) {
    let Ok(address) = text.parse::<IpAddr>() else {
        return errors.invalid(path, text, "must be a valid IP address");
    };
    if address.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    }
    if address.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match address {
        IpAddr::V4(address) => (address.is_link_local(), address.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(address) => (address.is_unicast_link_local(), address.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// `true` for IPv6; `None` when it is no address.
pub(crate) fn is_v6(text: &str) -> Option<bool> {
    text.parse::<IpAddr>().ok().map(|address| address.is_ipv6())
}
