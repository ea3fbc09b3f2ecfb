//! A pod's resolver configuration, by its dnsPolicy and dnsConfig.

use crate::Settings;
use api::core::v1::Pod;
use container_runtime::cri::messages::DnsConfig;

/// What the C library takes: upstream's limits.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

pub fn config(settings: &Settings, pod: &Pod) -> DnsConfig {
    let host = || parse(&std::fs::read_to_string(&settings.resolv_conf).unwrap_or_default());
    let mut policy = pod.spec.dns_policy.as_str();
    if policy == "ClusterFirst" && pod.spec.host_network {
        policy = "Default";
    }
    if policy.starts_with("ClusterFirst") && settings.cluster_dns.is_empty() {
        policy = "Default";
    }
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        "Default" => host(),
        _ => {
            let namespace = &pod.metadata.namespace;
            let domain = &settings.cluster_domain;
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(host().searches);
            DnsConfig { servers: settings.cluster_dns.clone(), searches, options: vec!["ndots:5".into()] }
        }
    };
    if let Some(own) = &pod.spec.dns_config {
        dns.servers.extend(own.nameservers.iter().cloned());
        dns.searches.extend(own.searches.iter().cloned());
        for option in &own.options {
            let text = match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{}:{value}", option.name),
                _ => option.name.clone(),
            };
            dns.options.retain(|old| old.split(':').next() != Some(option.name.as_str()));
            dns.options.push(text);
        }
    }
    limit(&mut dns);
    dns
}

fn limit(dns: &mut DnsConfig) {
    unique(&mut dns.servers);
    unique(&mut dns.searches);
    dns.servers.truncate(SERVERS_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    while dns.searches.join(" ").len() > SEARCH_CHARACTERS_MAX {
        dns.searches.pop();
    }
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|one| seen.insert(one.clone()));
}

/// Reads a resolv.conf: the last `search` counts.
fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(String::from)),
            Some("search" | "domain") => {
                dns.searches = words
                    .map(|word| word.trim_end_matches('.').to_string())
                    .filter(|word| !word.is_empty())
                    .collect();
            }
            Some("options") => dns.options = words.map(String::from).collect(),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_file_is_read_as_the_c_library_does() {
        let dns = parse("# x\nnameserver 10.0.0.1\nsearch a b.\nsearch c\noptions ndots:2 rotate\n");
        assert_eq!(
            (dns.servers.join(","), dns.searches.join(","), dns.options.join(",")),
            ("10.0.0.1".into(), "c".into(), "ndots:2,rotate".into())
        );
    }
}
